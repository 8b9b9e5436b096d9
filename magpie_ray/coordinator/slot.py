"""One actor's share of a job: what is pending for it, and what its current worker has open."""

from collections import deque
from dataclasses import dataclass, field

from magpie_ray.dataset import partitioning
from magpie_ray.types import Partition


@dataclass(slots=True)
class Pace:
    """One worker's rows over time. since: when it was first given any. moved: when the last one ended."""

    since: float
    moved: float
    finished: int = 0

    @classmethod
    def starting(cls, now: float) -> "Pace":
        """Of a worker that is given its first rows now."""
        return cls(since=now, moved=now)

    def note(self, finished: int, now: float) -> None:
        """The worker has finished so many rows since it started."""
        if finished > self.finished:
            self.finished, self.moved = finished, now

    @property
    def rows_per_second(self) -> float | None:
        """Until its last row: who waits for work is not slow. None before the first one."""
        return self.finished / max(self.moved - self.since, 1e-9) if self.finished else None

    def seconds_left(self, rows: int, now: float) -> float:
        """Until so many more are finished. Who stood still for a minute is expected to do so for another."""
        if rows <= 0:
            return 0.0
        rate = self.rows_per_second
        return max(rows / rate if rate else 0.0, now - self.moved)


@dataclass(slots=True)
class Slot:
    """One actor's share: its shard's pending partitions, and what its worker has open.

    behind: what is behind the heads that the worker committed, as one does that ends. given_rows: rows
    given to the current worker. ended_rows: those of them that it finished in partitions that are not open
    any more. fruitless: what workers count that were lost in a row before they were given anything.
    staffed: whether there is, or is to be, a worker.
    """

    pending: deque[Partition]
    open: list[Partition] = field(default_factory=list)
    behind: list[Partition] = field(default_factory=list)
    given_rows: int = 0
    ended_rows: int = 0
    pace: Pace | None = None
    fruitless: float = 0.0
    staffed: bool = True

    def close(self, partition: Partition, *, dropped: bool) -> None:
        """The partition is not open any more: all of it was finished, or the worker is told to drop it."""
        unfinished = min(partition.num_rows, self.unfinished(partition)) if dropped else 0
        self.ended_rows += partition.num_rows - unfinished
        self.open.remove(partition)

    def unfinished(self, last: Partition) -> int:
        """Rows that are to be finished of its open partitions up to the last; they are finished in order."""
        rows = partitioning.rows_in(self.open[: self.open.index(last) + 1])
        return max(0, rows - max(0, self.pace.finished - self.ended_rows)) if self.pace else rows

    def seconds_left(self, partition: Partition, now: float) -> float:
        """Until the worker is done with its open partitions up to this one."""
        assert self.pace is not None, "nothing is open before anything was given"
        return self.pace.seconds_left(self.unfinished(partition), now)
