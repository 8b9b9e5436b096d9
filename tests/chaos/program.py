"""`magpie-ray` as it is, but for its engine: `-m tests.chaos.program FOLDER STEP_SECONDS generate ...`."""

import functools
import sys
from pathlib import Path

from magpie_ray.cli.program import main
from magpie_ray.driver import run_build
from tests.chaos.engines import SteeredEngine

# By default a silent cluster counts as gone after 40 s, a seventh of a chaos run.
_TIMING = run_build.Timing(cluster_gone_seconds=10.0)

if __name__ == "__main__":
    folder, step_seconds = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
    run_build.run_job = functools.partial(
        run_build.run_job, engine_factory=SteeredEngine(folder, step_seconds), timing=_TIMING
    )
    main()
