"""A job as a process of its own, with simulated engines, whose log a test reads while it runs."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.end_to_end.cluster import ROOT

# `magpie-ray` with another engine, and less patient: it logs its progress every second, and a silent cluster
# counts as gone after ten.
_PROGRAM = """
import functools, sys
from magpie_ray.cli.program import main
from magpie_ray.driver import run_build
from tests.support.engines import *
from tests.end_to_end.faulty_engines import *

timing = run_build.Timing(cluster_gone_seconds=10.0, log_seconds=1.0)
factory = eval(sys.argv.pop(1))
run_build.run_job = functools.partial(run_build.run_job, engine_factory=factory, timing=timing)
main()
"""


def _hear_hangups() -> None:
    """Under nohup the tests would hand down that SIGHUP is ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class RunningJob:
    """`magpie-ray generate ARGUMENTS` with the engines that `factory`, a Python expression, makes."""

    def __init__(self, factory: str, *arguments: str, env: Mapping[str, str]) -> None:
        self._home = tempfile.TemporaryDirectory()
        self._hurry_file = Path(self._home.name) / "hurry"
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, factory, "generate", "jobs/configs/demo.yaml", *arguments],
            cwd=ROOT,
            env={**os.environ, **env, "PYTHONPATH": str(ROOT), "HURRY_FILE": str(self._hurry_file)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_hangups,
        )
        self._lines: list[str] = []
        self._told = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._home.cleanup()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as told:
            for line in told:
                with self._told:
                    self._lines.append(line)
                    self._told.notify_all()
        with self._told:
            self._told.notify_all()

    @property
    def log(self) -> str:
        """All that it has said so far."""
        with self._told:
            return "".join(self._lines)

    def wait_for(self, pattern: str, *, times: int = 1, seconds: float = 120) -> list[re.Match[str]]:
        """The first `times` matches in its log, once they are there."""

        def found() -> list[re.Match[str]]:
            return list(re.finditer(pattern, "".join(self._lines)))

        with self._told:
            there = self._told.wait_for(
                lambda: len(found()) >= times or not self._reader.is_alive(), timeout=seconds
            )
            matches = found()
        assert there, f"no {pattern!r} in {seconds} s:\n{self.log}"
        assert len(matches) >= times, f"ended without {pattern!r}:\n{self.log}"
        return matches[:times]

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def hurry(self) -> None:
        """From now on its `Paced` engines do not pause any more."""
        self._hurry_file.touch()

    def end(self, *, seconds: float = 180) -> int:
        """Its exit code, once it has ended."""
        code = self._process.wait(timeout=seconds)
        self._reader.join()
        return code


def rows_settings(output: Path | str, num_rows: int, grid: int, *more: str) -> list[str]:
    """A build with a seed, so that each row has the same system prompt every time."""
    size = [f"num_rows={num_rows}", f"output.rows_per_partition={grid}"]
    return [*size, "seed=0", f"output.path={output}", *more]
