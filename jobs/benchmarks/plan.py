"""The forecast of `plan --sample` against `generate`: the time of the whole command, and the tokens.

Each pair runs both commands, one after the other in processes of their own. The builds are the demo, which a
sample of a minute makes whole, and a build with several times its rows, of which the sample makes a part.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jobs.benchmarks.result import Claim, Result, Table

_ROOT = Path(__file__).resolve().parents[2]
_COMMAND = [sys.executable, "-c", "from magpie_ray.cli.program import main; main()"]
_CONFIG = "jobs/configs/demo.yaml"
_WITHIN = 0.15


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A plan and its build. load_before_*: the load average before each."""

    build: str
    foretold_s: float
    took_s: float
    foretold_tokens: float
    tokens: int
    load_before_plan: float
    load_before_build: float

    @property
    def time_ratio(self) -> float:
        return self.foretold_s / self.took_s

    @property
    def token_ratio(self) -> float:
        return self.foretold_tokens / self.tokens


def run() -> Result:
    """Measure all of it."""
    whole = [_pair("the demo", "60s") for _ in range(3)]
    part = [_pair("the demo with 6,000 rows", "20s", "num_rows=6000") for _ in range(3)]
    claims = [
        Claim(
            what=f"{pairs[0].build}: {what} foretold over taken, median of {len(pairs)}, from 1",
            value=abs(median(getattr(pair, ratio) for pair in pairs) - 1),
            must_be="at most",
            bound=_WITHIN,
        )
        for pairs in (whole, part)
        for what, ratio in (("time", "time_ratio"), ("tokens", "token_ratio"))
    ]
    rows = [
        asdict(pair) | {"time_ratio": pair.time_ratio, "token_ratio": pair.token_ratio}
        for pair in [*whole, *part]
    ]
    return Result(
        name="plan",
        tables=[Table(title="plan --sample and the build it was for", rows=rows)],
        claims=claims,
        notes=["times are of whole commands, from the shell and back, Ray and the engines' start included"],
    )


def _pair(build: str, sample: str, *overrides: str) -> Pair:
    with tempfile.TemporaryDirectory(prefix="magpie-benchmark-") as folder:
        arguments = [_CONFIG, f"output.path={folder}/build", "cluster.address=local", *overrides]
        loads = [os.getloadavg()[0]]
        plan = json.loads(_run("plan", *arguments, "--sample", sample, "--json"))
        loads.append(os.getloadavg()[0])
        started = time.monotonic()
        _run("generate", *arguments)
        took = time.monotonic() - started
        status: dict[str, Any] = json.loads(_run("status", f"{folder}/build", "--json"))
    return Pair(
        build=build,
        foretold_s=plan["estimate"]["wall_seconds"]["low"],
        took_s=took,
        foretold_tokens=plan["estimate"]["tokens"]["low"],
        tokens=status["user_tokens"] + status["assistant_tokens"],
        load_before_plan=loads[0],
        load_before_build=loads[1],
    )


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [*_COMMAND, *arguments],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        text=True,
        check=True,
    )
    return done.stdout
