"""What a run does about a build that is there already: go on with it, leave it alone, or refuse.

What always holds: whether a driver is at work is judged by what it writes while we look, so no clocks are
compared, and the run of a driver that died is not taken for a live one. To be wrong costs work and no rows:
two drivers on one build are kept apart by the commit protocol.
"""

import time
from collections.abc import Callable
from typing import Literal

from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.run_records import BEAT_SECONDS, read_heartbeat
from magpie_ray.errors import BuildExistsError
from magpie_ray.storage.storage import Storage

IfExists = Literal["resume", "skip", "fail"]

# A live driver writes within one beat, or, where its store is slow, within the next.
WATCH_SECONDS = 2.5 * BEAT_SECONDS
_LOOK_SECONDS = 5.0

_Signs = dict[int, tuple[str, object]]


def reason_to_leave(
    storage: Storage,
    if_exists: IfExists,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str | None:
    """Why the build in `storage`, which is there, is left alone; None: go on with it.

    BuildExistsError with `fail`. With `skip` a build that is complete or worked on is left alone; to see
    whether the driver of an open run is at work, that is watched for up to WATCH_SECONDS.
    """
    if if_exists == "resume":
        return None
    if if_exists == "fail":
        raise exists(storage)
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


def exists(storage: Storage) -> BuildExistsError:
    """The error of `fail`."""
    return BuildExistsError(
        f"{storage.url} holds a build already, and --if-exists is fail: choose another output.path, or "
        "--if-exists resume to go on with it"
    )


def _signs(storage: Storage) -> _Signs:
    """Of each run how it stands, and its last beat."""
    runs = run_records.read_runs(storage)
    return {run.number: (run.outcome, _beat(storage, run.number, run.outcome)) for run in runs}


def _beat(storage: Storage, number: int, outcome: str) -> object:
    return read_heartbeat(storage, number) if outcome == "running" else None
