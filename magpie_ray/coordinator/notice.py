"""The time that a run has for its end once it is told to stop: one budget for all that is still done.

Kubernetes, a scheduler or a spot market ends the process when its own time is over, so the time runs from the
signal on, and each step of the end may only use what those before it have left.
"""

import time
from collections.abc import Callable

from magpie_ray.storage.storage import Storage

# Shares of the time by which each step is over. Workers generate and upload within shares of their own
# (worker.worker).
HEARD_SHARE = 0.8  # the driver has heard what the workers committed
ENDED_SHARE = 0.85  # the actors are ended
CHECKPOINT_SHARE = 0.9
STORED_SHARE = 0.95  # the run's record says how it ended, and nothing more is written
# Beyond the time, for leaving the cluster. Then the process is ended by force.
SLACK_SECONDS = 3.0


class Notice:
    """seconds: cluster.notice_seconds, from `begin` on.

    clock: seconds, monotonic. Pauses of this process count: whoever ends it does not wait for them.
    """

    def __init__(
        self, seconds: float, storage: Storage, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.seconds = seconds
        self._storage = storage
        self._clock = clock
        self._began: float | None = None

    def begin(self) -> None:
        """The time runs from now on, also for every request to storage. A second call changes nothing."""
        if self._began is None:
            self._began = self._clock()
            self._storage.give_up_after(STORED_SHARE * self.seconds)

    def left(self, share: float, *, most: float | None = None) -> float:
        """Seconds until that share of the time is over; `most` at most, and before `begin`."""
        whole = share * self.seconds if most is None else most
        if self._began is None:
            return whole
        return max(0.0, min(whole, self._began + share * self.seconds - self._clock()))
