"""`magpie-ray` as it is, but for its engine: `-m tests.chaos.program FOLDER STEP_SECONDS generate ...`."""

import functools
import sys
from pathlib import Path

from magpie_ray.cli.program import main
from magpie_ray.driver import cluster_watch, run_build
from tests.chaos.engines import SteeredEngine

# A head that is gone is given up after three quarters of a minute, a seventh of a chaos run.
_GONE_SECONDS = 10.0

if __name__ == "__main__":
    cluster_watch._GONE_SECONDS = _GONE_SECONDS
    folder, step_seconds = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
    run_build.generate = functools.partial(
        run_build.generate, engine_factory=SteeredEngine(folder, step_seconds)
    )
    main()
