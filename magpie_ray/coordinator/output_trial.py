"""Whether the driver can still use the output, when an actor has given it up."""

import logging
from collections.abc import Callable
from concurrent.futures import wait

from magpie_ray.errors import GenerationFailedError, NoRoomError, PreflightError, StorageError
from magpie_ray.storage.failures import is_transient
from magpie_ray.storage.storage import Storage
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.utils.background import in_background

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


class OutputTrial:
    """most_seconds: that one trial may take, for which the job's loop stands still. every_seconds: between
    two trials, because many actors give up together. clock: seconds that this process was awake.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        most_seconds: float = 60.0,
        every_seconds: float = 300.0,
        clock: Callable[[], float] = awake_seconds,
    ) -> None:
        self._storage, self._clock = storage, clock
        self._most_seconds, self._every_seconds = most_seconds, every_seconds
        self._tried: float | None = None
        self._works = True

    def run(self, error: StorageError, *, stop_requested: Callable[[], bool]) -> bool:
        """Whether the driver can use the output, as of the last trial.

        GenerationFailedError when it can't, for a reason that does not pass by itself, or has no room.

        error: why the actor gave up. An outage is left to the actors, which wait for its end; when no engine
        is up any more, the starts that fail end the run. Returns at once when the run is told to stop.
        """
        if isinstance(error, NoRoomError):  # a trial writes little, for which there may be room
            raise GenerationFailedError(
                f"the output has no room any more. {error} Committed rows are kept"
            ) from error
        if self._tried is not None and self._clock() - self._tried < self._every_seconds:
            return self._works
        trial = in_background(self._storage.probe)
        until = self._clock() + self._most_seconds
        while not trial.done() and self._clock() < until:
            if stop_requested():
                return True
            wait([trial], timeout=_LOOK_SECONDS)
        self._tried, self._works = self._clock(), False
        outage = f"no answer from {self._storage.url} for {self._most_seconds:g} s"
        if trial.done():
            try:
                trial.result()
                self._works = True
            except PreflightError as found:
                if not _passes(found):
                    raise GenerationFailedError(
                        f"the output can't be used any more. An actor reported: {error} Then the driver: "
                        f"{found} Committed rows are kept: once the cause is mended, run the same command "
                        "again to resume"
                    ) from error
                outage = str(found)
        if not self._works:
            log.warning("an actor gave up the output, and the driver can't use it now either: %s", outage)
        return self._works


def _passes(error: BaseException) -> bool:
    """Whether what lies behind the error is an outage."""
    while error.__cause__ is not None:
        error = error.__cause__
    return is_transient(error)
