"""`magpie-ray` as it is, but for its engine: `-m tests.chaos.program FOLDER STEP_SECONDS generate ...`."""

import functools
import sys
from pathlib import Path

from magpie_ray import driver
from magpie_ray.cli import main
from magpie_ray.driver import watch
from tests.chaos.engines import SteeredEngine

# A head that is gone is given up after three quarters of a minute, a seventh of a chaos run.
_GONE_SECONDS = 10.0

if __name__ == "__main__":
    watch._GONE_SECONDS = _GONE_SECONDS
    folder, step_seconds = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
    driver.generate = functools.partial(driver.generate, engine_factory=SteeredEngine(folder, step_seconds))
    main()
