"""A clock that leaves out the time in which this process was suspended.

A suspended process (SIGSTOP, a migrating VM, a laptop's lid) finds on waking that minutes have passed in
which it could neither ask nor hear anything. A time limit on others must not count those minutes. The
kernel's clocks run on during SIGSTOP, so a thread ticks, and a long gap between two ticks is a pause.
"""

import functools
import logging
import os
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_TICK_SECONDS = 1.0
# No busy machine keeps a thread that only ticks from running for so long.
_LONGEST_GAP_SECONDS = 5.0


class AwakeClock:
    """Seconds, monotonic; any thread may call it, and each call is a tick.

    A gap between two ticks counts as `longest_gap` at most, so time limits on others still come to an end
    where a thread hardly gets to run. clock: seconds, monotonic.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, longest_gap: float = _LONGEST_GAP_SECONDS
    ) -> None:
        self._clock, self._longest_gap = clock, longest_gap
        self._lock = threading.RLock()  # a signal handler may interrupt a reading, and read, too
        self._ticked = clock()
        self._paused = 0.0

    def __call__(self) -> float:
        with self._lock:
            now = self._clock()
            gap = now - self._ticked
            pause = max(0.0, gap - self._longest_gap)
            self._ticked = now
            self._paused += pause
            awake = now - self._paused
        if gap > 2 * self._longest_gap:  # not only a very busy machine
            log.warning("this process did not run for %.0f s: no time limit counts that pause", gap)
        return awake


def awake_seconds() -> float:
    """The AwakeClock of this process. A difference of two readings leaves out the pauses between them."""
    return _clock_of(os.getpid())()


@functools.cache
def _clock_of(_pid: int) -> AwakeClock:
    """A forked child has no thread of its parent's, so it gets a clock of its own."""
    clock = AwakeClock()

    def tick() -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            clock()

    threading.Thread(target=tick, name="awake-clock", daemon=True).start()
    return clock
