"""Pure decisions of a running job: which partition to whom, when to replace, wait, finish or give up.

A worker is a slot's current actor. Events go in, decisions come out as frozen values; the driver carries them
out. What always holds: a partition is pending, with one worker, or committed, never two of these; a partition
handed out is never taken back, except from a worker that is lost.
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from magpie_ray import plan
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition, PartitionRecord

# Starts in a row that fail before any engine is up: by then it is the setting, not bad luck.
_MAX_FAILED_STARTS = 3
# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Give:
    """Hand the partition to the slot's worker."""

    slot: int
    partition: Partition


@dataclass(frozen=True, kw_only=True, slots=True)
class Finish:
    """Tell the slot's worker that no more partitions will come."""

    slot: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Replace:
    """The slot's worker is lost: start another one there."""

    slot: int


Decision = Give | Finish | Replace


@dataclass(slots=True)
class _Slot:
    """One actor's share: its shard's pending partitions, and what its worker has open."""

    pending: deque[Partition]
    open: list[Partition] = field(default_factory=list)
    alive: bool = True
    finishing: bool = False

    @property
    def pending_rows(self) -> int:
        return sum(p.num_rows for p in self.pending)


class Dispatcher:
    """The state of one run. Call the method of each event; do what it returns."""

    def __init__(
        self, pending: Sequence[Partition], *, num_slots: int, grid: int, max_failures_per_partition: int
    ) -> None:
        self._slots = [_Slot(deque(shard)) for shard in plan.shards(pending, num_slots)]
        self._grid = grid
        self._max_failures = max_failures_per_partition
        self._failures = Counter[int]()  # by the partition's first row
        self._failed_starts = 0

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    @property
    def done(self) -> bool:
        """Whether nothing is pending or open any more."""
        return not any(slot.pending or slot.open for slot in self._slots)

    @property
    def pending_rows(self) -> int:
        """Rows that no worker has."""
        return sum(slot.pending_rows for slot in self._slots)

    def open_partitions(self, slot: int) -> tuple[Partition, ...]:
        """What the slot's worker has."""
        return tuple(self._slots[slot].open)

    def ready(self, slot: int) -> None:
        """The slot's engine is up."""
        self._failed_starts = 0

    def progress(self, slot: int, *, unstarted: int, live_window: int) -> list[Decision]:
        """The slot's worker has so many unstarted rows: give it more when they are below its live window.

        Its own shard comes first. From another shard it takes only when it is about to run dry, so that a
        worker that is up early does not hoard what others could begin.
        """
        own = self._slots[slot]
        decisions: list[Decision] = []
        while not own.finishing and unstarted < live_window:
            if own.pending:
                partition = own.pending.popleft()
            elif unstarted * _STEAL_BELOW < live_window and (fullest := self._fullest()).pending:
                partition = fullest.pending.pop()
            else:
                break
            own.open.append(partition)
            unstarted += partition.num_rows
            decisions.append(Give(slot=slot, partition=partition))
        return decisions

    def _fullest(self) -> _Slot:
        return max(self._slots, key=lambda slot: slot.pending_rows)

    def committed(self, slot: int, partition: Partition, record: PartitionRecord) -> list[Decision]:
        """The slot's partition ended in a file. What the file does not cover is pending again."""
        own = self._slots[slot]
        own.open.remove(partition)
        rest = plan.pending(partition.stop, self._grid, [*_before(partition), record.partition])
        own.pending.extendleft(reversed(rest))
        return self._finish_all() if self.done else []

    def lost(self, slot: int, *, cause: str) -> list[Decision]:
        """The slot's worker died. Its open partitions are given out again.

        GenerationFailedError when a partition was lost too often, or engines don't start at all.
        """
        own = self._slots[slot]
        if not own.open:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS:
                raise GenerationFailedError(
                    f"{self._failed_starts} actors in a row died before they generated anything. The last "
                    f"one said: {cause}"
                )
        for partition in own.open:
            self._failures[partition.start] += 1
            if self._failures[partition.start] >= self._max_failures:
                raise GenerationFailedError(
                    f"{partition} failed {self._max_failures} times (cluster.max_failures_per_partition). "
                    f"The last actor said: {cause}. What is committed is kept: fix the cause and run the "
                    "same command again"
                )
        own.pending.extendleft(reversed(own.open))
        own.open.clear()
        return [Replace(slot=slot)]

    def _finish_all(self) -> list[Decision]:
        decisions: list[Decision] = []
        for index, slot in enumerate(self._slots):
            if not slot.finishing:
                slot.finishing = True
                decisions.append(Finish(slot=index))
        return decisions


def _before(partition: Partition) -> Iterable[Partition]:
    """Everything below the partition, as one covered range."""
    return [Partition(start=0, stop=partition.start)] if partition.start else []
