"""`python -m tests.chaos [--seed 0] [--faults 200] [--rows 20000]`: the real job under injected faults.

Prints a table. The exit code is 0 when no row is lost or doubled, every build finishes and verifies, every
recovery is in time, and all faults were injected. Takes some minutes on two cores.
"""

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.chaos import scenarios
from tests.chaos.builds import Ended
from tests.chaos.ground import Ground, prepared
from tests.chaos.report import print_table, problems

_CPUS = 4
# Shares and numbers of the faults. The remaining faults, the larger part, spoil requests.
_HARM, _STRIKES, _NODE_KILLS, _OUTAGES = 0.26, 0.03, 4, 3
# Some requests to spoil never come, so a few more faults wait for them.
_SPARE = 1.1
# In virtual time, and in a process of its own, whose memory is measured.
_WEEK = "week"
_SCENARIOS = ("actors", "drivers", "rivals", "passes", "nodes", "hangs", _WEEK)
# Of the harm that is done to actors, the share of those of a pass.
_PASSES = 0.3
# They start their own nodes.
_ON_THEIR_OWN = {"nodes", "hangs", _WEEK}


def run(ground: Ground, scale: scenarios.Scale, *, faults: int, only: list[str]) -> list[Ended]:
    """Run the builds one after another, most of them on one cluster."""
    harm, strikes = round(_HARM * faults), round(_STRIKES * faults)
    s3 = round(_SPARE * (faults - harm - strikes - _NODE_KILLS - _OUTAGES))
    ended = []
    if set(only) - _ON_THEIR_OWN:
        head = ground.start_node(num_cpus=_CPUS).wait_until_up()
    if "actors" in only:
        own = harm - round(_PASSES * harm)
        ended.append(scenarios.actors(ground, head, scale, harm=own, s3=s3 // 2, outages=_OUTAGES))
    if "rivals" in only:
        ended.append(scenarios.rivals(ground, head, scale, s3=s3 // 6))
    if "passes" in only:
        ended.append(scenarios.passes(ground, head, scale, harm=round(_PASSES * harm), s3=s3 // 6))
    if "drivers" in only:
        ended.append(scenarios.drivers(ground, head, scale, strikes=strikes, s3=s3 // 6))
    ground.clear()
    if "nodes" in only:
        ended.append(scenarios.nodes(ground, scale, kills=_NODE_KILLS))
    ground.clear()
    if "hangs" in only:
        ended.append(scenarios.hangs(ground, scale))
    return ended


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20_000, help="of each build")
    parser.add_argument("--home", type=Path, help="where logs go; default: a new folder, kept if need be")
    parser.add_argument("--only", nargs="+", choices=_SCENARIOS, default=list(_SCENARIOS))
    parser.add_argument("--skip", nargs="+", default=[], help="parts of names of actor faults to leave out")
    options = parser.parse_args()
    # By an exception, so that the contexts end all processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, began = Console(width=118), time.monotonic()
    home = options.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    home.mkdir(exist_ok=True)
    failures = list[str]()
    if set(options.only) != {_WEEK}:
        with prepared(home) as ground:
            scale = scenarios.Scale(seed=options.seed, rows=options.rows, skip=tuple(options.skip))
            builds = run(ground, scale, faults=options.faults, only=options.only)
        print_table(builds, console)
        failures = problems(builds, options.faults)
    if _WEEK in options.only:
        week = [sys.executable, "-m", "tests.chaos.week", "--seed", str(options.seed)]
        if subprocess.run(week, check=False).returncode:
            failures.append("week: see below its table")
    for problem in failures:
        console.print(f"- {problem}", markup=False)
    outcome = f"{len(failures)} problems, logs in {home}" if failures else "no problem"
    console.print(f"seed {options.seed}, {time.monotonic() - began:.0f} s: {outcome}")
    if not (failures or options.home):
        shutil.rmtree(home)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
