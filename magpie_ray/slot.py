"""One actor's share of a job: what is pending for it, and what its current worker has open."""

from collections import deque
from dataclasses import dataclass, field

from magpie_ray import plan
from magpie_ray.pace import Pace
from magpie_ray.types import Partition


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
        rows = plan.rows_in(self.open[: self.open.index(last) + 1])
        return max(0, rows - max(0, self.pace.finished - self.ended_rows)) if self.pace else rows

    def seconds_left(self, partition: Partition, now: float) -> float:
        """Until the worker is done with its open partitions up to this one."""
        assert self.pace is not None, "nothing is open before anything was given"
        return self.pace.seconds_left(self.unfinished(partition), now)
