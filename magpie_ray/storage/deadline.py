"""The moment by which every call of this process on one output has ended.

Invariants: a deadline only ever comes nearer. A call that waits for a reply, or between two attempts, when
the deadline passes ends within a moment; the reply, if it still comes, goes to nobody.
"""

import math
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import TypeVar

from magpie_ray.utils.background import in_background

T = TypeVar("T")

# A call looks this often whether the deadline was brought forward.
_LOOK_SECONDS = 0.25


class Deadline:
    """Infinitely far off until `bring_forward`. Threads share it. clock: seconds, monotonic."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = math.inf

    def bring_forward(self, seconds: float) -> None:
        """The deadline is so many seconds from now, or sooner if it was sooner already."""
        self._at = min(self._at, self._clock() + seconds)

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._at - self._clock())

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until the deadline."""
        until = self._clock() + seconds
        while (left := min(until - self._clock(), self.seconds_left)) > 0:
            time.sleep(min(left, _LOOK_SECONDS))

    def run(self, attempt: Callable[[], T], *, most_seconds: float = math.inf) -> T:
        """What the attempt returns or raises. TimeoutError when it has not ended by the deadline, or in time.

        The attempt runs in a thread, because no library can be told to drop a request that hangs.
        """
        if not self.seconds_left:
            raise TimeoutError("there was no time left for it")
        future = in_background(attempt)
        until = self._clock() + most_seconds
        while not future.done():
            if not self.seconds_left:
                raise TimeoutError("no reply came in the time that was left")
            if self._clock() > until:
                raise TimeoutError(f"no reply came for {most_seconds:.0f} s")
            wait([future], timeout=min(self.seconds_left, _LOOK_SECONDS))
        return future.result()
