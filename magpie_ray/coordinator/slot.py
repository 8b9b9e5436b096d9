"""One slot of a job: its pending partitions, and the work and pace of its current worker."""

from collections import deque
from dataclasses import dataclass, field

from magpie_ray.dataset import partitioning
from magpie_ray.types import Partition


@dataclass(slots=True)
class Pace:
    """One worker's rows over time. since: when it got its first rows. moved: when its last row ended."""

    since: float
    moved: float
    finished: int = 0

    @classmethod
    def starting(cls, now: float) -> "Pace":
        """The pace of a worker that gets its first rows now."""
        return cls(since=now, moved=now)

    def note(self, finished: int, now: float) -> None:
        """The worker has finished so many rows since it started."""
        if finished > self.finished:
            self.finished, self.moved = finished, now

    @property
    def rows_per_second(self) -> float | None:
        """Up to the last row, as a worker that waits for work is not slow. None before the first row."""
        return self.finished / max(self.moved - self.since, 1e-9) if self.finished else None

    def seconds_left(self, rows: int, now: float) -> float:
        """Until so many more rows end. A worker that stood still is expected to do so as long again."""
        if rows <= 0:
            return 0.0
        rate = self.rows_per_second
        return max(rows / rate if rate else 0.0, now - self.moved)


@dataclass(slots=True)
class Slot:
    """One actor's share of a job.

    pending: of its shard. open: partitions that its worker has. behind: what that worker left behind the
    heads that it committed, which it does when it ends. given_rows: rows given to the worker; ended_rows:
    those of them that it finished in partitions that are not open any more. node: where the worker is, ""
    where that is unknown. heard: it has reported progress.
    """

    pending: deque[Partition]
    open: list[Partition] = field(default_factory=list)
    behind: list[Partition] = field(default_factory=list)
    given_rows: int = 0
    ended_rows: int = 0
    pace: Pace | None = None
    node: str = ""
    heard: bool = False

    @property
    def rows_per_second(self) -> float | None:
        """Of its worker; None before its first row."""
        return self.pace.rows_per_second if self.pace else None

    def give(self, partition: Partition, now: float) -> None:
        """The worker gets the partition."""
        self.pace = self.pace or Pace.starting(now)
        self.open.append(partition)
        self.given_rows += partition.num_rows

    def close(self, partition: Partition, *, dropped: bool) -> None:
        """The partition is not open any more: its worker has finished it, or is told to drop it."""
        unfinished = min(partition.num_rows, self.unfinished(partition)) if dropped else 0
        self.ended_rows += partition.num_rows - unfinished
        self.open.remove(partition)

    def clear(self) -> None:
        """The worker is gone."""
        self.open.clear()
        self.behind.clear()
        self.given_rows = self.ended_rows = 0
        self.pace = None
        self.node, self.heard = "", False

    def unfinished(self, last: Partition) -> int:
        """Unfinished rows of the open partitions up to the last one; the worker finishes them in order."""
        rows = partitioning.rows_in(self.open[: self.open.index(last) + 1])
        return max(0, rows - max(0, self.pace.finished - self.ended_rows)) if self.pace else rows

    def seconds_left(self, partition: Partition, now: float) -> float:
        """Until the worker has finished its open partitions up to this one."""
        assert self.pace is not None, "nothing is open before anything was given"
        return self.pace.seconds_left(self.unfinished(partition), now)
