"""Whether a run resumes an existing build, skips it, or fails.

Invariants: a driver counts as at work only when it writes something while we watch, so no clocks are compared
and a dead driver's run does not count. A wrong answer costs work but no rows: the commit protocol keeps two
drivers on one build apart.
"""

import time
from collections.abc import Callable

from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.run_records import BEAT_SECONDS, read_heartbeat
from magpie_ray.errors import BuildExistsError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import IfExists
from magpie_ray.utils.awake import awake_seconds

# A live driver writes within one beat, or, on a slow store, within the next.
WATCH_SECONDS = 2.5 * BEAT_SECONDS
_LOOK_SECONDS = 5.0


def reason_to_leave(
    storage: Storage,
    if_exists: IfExists,
    *,
    clock: Callable[[], float] = awake_seconds,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Why the existing build in `storage` is skipped; None: resume it.

    `skip` skips a build that is complete, or that another driver works on; to find out about such a driver,
    this watches the build for up to WATCH_SECONDS. BuildExistsError with `fail`.
    """
    if if_exists == "resume":
        return None
    if if_exists == "fail":
        raise exists_error(storage)
    before, until = _signs(storage), clock() + WATCH_SECONDS
    while True:
        if manifest.is_marked_complete(storage):
            return "it is complete"
        signs = _signs(storage)
        running = [number for number, (outcome, _) in signs.items() if outcome == "running"]
        if alive := [number for number in running if signs[number] != before.get(number)]:
            return f"run {alive[0]} is at work on it"
        if clock() >= until or (before and not running):
            return None
        sleep(_LOOK_SECONDS)


def exists_error(storage: Storage) -> BuildExistsError:
    """The error that if_exists: fail ends in."""
    return BuildExistsError(
        f"{storage.url} holds a build already, and --if-exists is fail: choose another output.path, "
        "or --if-exists resume"
    )


def _signs(storage: Storage) -> dict[int, tuple[str, object]]:
    """Of each run, by number: its outcome and its last heartbeat."""
    return {
        run.number: (run.outcome, read_heartbeat(storage, run.number) if run.outcome == "running" else None)
        for run in run_records.read_runs(storage)
    }
