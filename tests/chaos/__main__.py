"""`python -m tests.chaos [--seed 0] [--faults 200] [--rows 20000]`: the real job under injected faults.

Prints a table; exit code 0 when no row was lost or doubled, every build finished and verifies, every recovery
was in time, and that many faults were injected. Takes some minutes on two cores.
"""

import argparse
import shutil
import signal
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
# How many of all faults go where; what is left, the larger part, spoils requests.
_HARM, _STRIKES, _NODE_KILLS, _OUTAGES = 0.26, 0.03, 4, 3
# Some spoiled requests never come: a few more lie in wait.
_SPARE = 1.1
_SCENARIOS = ("actors", "drivers", "rivals", "nodes")


def run(ground: Ground, scale: scenarios.Scale, *, faults: int, only: list[str]) -> list[Ended]:
    """All builds, one after another; all but the last on one cluster."""
    harm, strikes = round(_HARM * faults), round(_STRIKES * faults)
    s3 = round(_SPARE * (faults - harm - strikes - _NODE_KILLS - _OUTAGES))
    ended = []
    if set(only) - {"nodes"}:
        head = ground.start_node(num_cpus=_CPUS).wait_until_up()
    if "actors" in only:
        ended.append(scenarios.actors(ground, head, scale, harm=harm, s3=s3 // 2, outages=_OUTAGES))
    if "rivals" in only:
        ended.append(scenarios.rivals(ground, head, scale, s3=s3 // 4))
    if "drivers" in only:
        ended.append(scenarios.drivers(ground, head, scale, strikes=strikes, s3=s3 // 4))
    ground.clear()
    if "nodes" in only:
        ended.append(scenarios.nodes(ground, scale, kills=_NODE_KILLS))
    return ended


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--rows", type=int, default=20_000, help="of each build")
    parser.add_argument("--home", type=Path, help="where logs go; default: a new folder, kept if need be")
    parser.add_argument("--only", nargs="+", choices=_SCENARIOS, default=list(_SCENARIOS))
    parser.add_argument("--skip", nargs="+", default=[], help="parts of names of actor faults to leave out")
    asked = parser.parse_args()
    # Through the contexts, which end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    console, began = Console(width=118), time.monotonic()
    home = asked.home or Path(tempfile.mkdtemp(prefix="chaos-"))
    home.mkdir(exist_ok=True)
    with prepared(home) as ground:
        scale = scenarios.Scale(seed=asked.seed, rows=asked.rows, skip=tuple(asked.skip))
        builds = run(ground, scale, faults=asked.faults, only=asked.only)
    print_table(builds, console)
    found = problems(builds, asked.faults)
    for problem in found:
        console.print(f"- {problem}", markup=False)
    told = f"{len(found)} problems, logs in {home}" if found else "no problem"
    console.print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s: {told}")
    if not (found or asked.home):
        shutil.rmtree(home)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
