"""`python -m tests.chaos.week [--seed 0] [--short] [--actors-per-node 1]`: the virtual week alone."""

import argparse
import logging
import sys

from rich.console import Console

from tests.chaos.week.drivers import run_week
from tests.chaos.week.report import memory_problems, print_table, problems
from tests.chaos.week.scale import long, short

LEAST_SHARE, LONGEST_WAIT_SECONDS = 0.97, 1800.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.week", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="half a day of 50 actors")
    parser.add_argument("--actors-per-node", type=int, default=1, help="a node's loss takes so many actors")
    parser.add_argument("--log", default="CRITICAL", help="level of the drivers' log")
    options = parser.parse_args()
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger("magpie_ray").setLevel(options.log)
    logging.getLogger("tests").setLevel("INFO")
    scale_of = short if options.short else long
    week = run_week(scale_of(options.seed, actors_per_node=options.actors_per_node))
    console = Console(width=118)
    print_table(week, console)
    share = 0.0 if options.short else LEAST_SHARE
    failures = [*problems(week, least_share=share, longest_wait=LONGEST_WAIT_SECONDS), *memory_problems(week)]
    for problem in failures:
        console.print(f"- {problem}", markup=False)
    console.print(f"seed {options.seed}: {f'{len(failures)} problems' if failures else 'no problem'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
