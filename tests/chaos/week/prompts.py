"""How many attempts the rows of a partition take, when they end on one engine, and when to give up."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magpie_ray.generation.attempt_queue import OFTEN
from magpie_ray.generation.sequential_tests import differs, falls_short
from magpie_ray.types import Partition
from tests.chaos.week.scale import Scale

# acceptance.min_accept_rate.
_MIN_ACCEPT_RATE = 0.1
# The rules are asked about rows whose failures have this probability at most.
_LOG_RARE = np.log(1e-6)


class Prompts:
    """The prompt groups of a build; a row's group follows from its number."""

    def __init__(self, scale: Scale) -> None:
        self.rejected = np.linspace(scale.least_rejected, scale.most_rejected, scale.prompts)
        self._draw = np.random.default_rng([scale.seed, 1])
        self._log_rejected = np.log(self.rejected)
        self.attempts_a_row = float(np.mean(1 / (1 - self.rejected)))
        # The engine is full: with `live_window` attempts at once it ends one each `attempt / live_window`
        # seconds.
        self.seat_seconds = scale.row_seconds / self.attempts_a_row
        self.attempt_seconds = self.seat_seconds * scale.live_window

    def groups(self, partition: Partition) -> NDArray[np.int64]:
        """The prompt group of each row."""
        rows = np.arange(partition.start, partition.stop, dtype=np.uint64)
        mixed: NDArray[np.uint64] = (rows * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        return (mixed % np.uint64(len(self.rejected))).astype(np.int64)

    def draw(self, partition: Partition) -> "Work":
        """What generating the partition takes, this time."""
        groups = self.groups(partition)
        attempts = self._draw.geometric(1 - self.rejected[groups])
        return Work(groups, attempts, self.seat_seconds, self.attempt_seconds)

    def exhausted(self, work: "Work", accepted: NDArray[np.int64], rejected: NDArray[np.int64]) -> str | None:
        """Why a row would end the build, by the rules for acceptance.max_attempts: auto; None: none does.

        accepted, rejected: attempts of the engine so far, by group.
        """
        failures = work.attempts - 1
        for row in np.flatnonzero(failures * self._log_rejected[work.groups] < _LOG_RARE):
            group, times = work.groups[row], int(failures[row])
            before = {"accepted": int(accepted[group]), "rejected": int(rejected[group])}
            if differs(times, **before) or falls_short(times, rate=_MIN_ACCEPT_RATE):
                return f"a row of group {group} was rejected {times} times; before: {before}"
        return None


@dataclass(slots=True)
class Work:
    """attempts: that each row takes. ends: when it is finished, since its engine has begun the first row.

    Rows start in order as seats of the batch come free. A rejected row is tried again at once; one that was
    rejected often waits until all rows have started, as in generation.attempt_queue. seconds: for which the
    engine's whole batch is at work on it. length: until the last row is finished.
    """

    groups: NDArray[np.int64]
    attempts: NDArray[np.int64]
    ends: NDArray[np.float64]
    sorted_ends: NDArray[np.float64]
    total: int
    seconds: float
    length: float

    def __init__(
        self,
        groups: NDArray[np.int64],
        attempts: NDArray[np.int64],
        seat_seconds: float,
        attempt_seconds: float,
    ) -> None:
        self.groups, self.attempts = groups, attempts
        through = np.cumsum(attempts)
        self.total = int(through[-1])
        self.seconds = self.total * seat_seconds
        soon = np.minimum(attempts, OFTEN)
        self.ends = (through - attempts) * seat_seconds + soon * attempt_seconds
        late = np.flatnonzero(attempts > OFTEN)
        rest = (attempts[late] - OFTEN) * attempt_seconds
        self.ends[late] = np.maximum(self.ends[late], self.seconds) + rest
        self.sorted_ends = np.sort(self.ends)
        self.length = float(self.sorted_ends[-1])

    def finished(self, seconds: float) -> int:
        """Rows that are finished so long after the begin."""
        return int(self.sorted_ends.searchsorted(seconds, side="right"))

    def head(self, seconds: float) -> int:
        """The longest run of finished rows from the start."""
        late = np.flatnonzero(self.ends > seconds)
        return int(late[0]) if len(late) else len(self.ends)
