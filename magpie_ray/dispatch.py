"""Pure decisions of a running job: which partition to whom, when to replace a worker, when to give up.

A worker is a slot's current actor. Events go in, decisions come out; the job carries them out. What always
holds: a partition is pending, with one worker, or committed, never two of these; a partition handed out is
never taken back, except from a worker that is lost; while anything is left to do, some slot has a worker.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from magpie_ray import plan
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition, PartitionRecord

# Workers of a slot that are lost in a row without having been given anything: by then it is not bad luck.
_MAX_FRUITLESS = 3
# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4


@dataclass(slots=True)
class _Slot:
    """One actor's share: its shard's pending partitions, and what its worker has open.

    given_rows: rows given to the current worker so far. fruitless: workers lost in a row before they were
    given anything. staffed: whether there is, or is to be, a worker.
    """

    pending: deque[Partition]
    open: list[Partition] = field(default_factory=list)
    given_rows: int = 0
    fruitless: int = 0
    staffed: bool = True


class Dispatcher:
    """The state of one run. Call the method of each event; do what it returns."""

    def __init__(
        self, pending: Sequence[Partition], *, num_slots: int, grid: int, max_failures_per_partition: int
    ) -> None:
        self._slots = [_Slot(deque(shard)) for shard in plan.shards(pending, num_slots)]
        self._grid = grid
        self._max_failures = max_failures_per_partition
        self._failures = Counter[int]()  # by the partition's first row

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    @property
    def done(self) -> bool:
        """Whether nothing is pending or open any more."""
        return not any(slot.pending or slot.open for slot in self._slots)

    def progress(self, slot: int, *, started: int, live_window: int) -> list[Partition]:
        """The slot's worker has begun `started` rows so far: what to give it now.

        It gets partitions until its unstarted rows fill its live window, counting those that are on their way
        to it. Its own shard comes first. From another shard it takes only when it is about to run dry, and
        one at a time, so that a worker that is up early leaves something to the others.
        """
        own = self._slots[slot]
        given: list[Partition] = []
        while (unstarted := own.given_rows - started) < live_window:
            if not own.pending and (given or unstarted * _STEAL_BELOW >= live_window):
                break
            partition = self._next(own)
            if partition is None:
                break
            own.open.append(partition)
            own.given_rows += partition.num_rows
            own.fruitless = 0
            given.append(partition)
        return given

    def _next(self, own: _Slot) -> Partition | None:
        if own.pending:
            return own.pending.popleft()
        fullest = max(self._slots, key=lambda slot: len(slot.pending))
        return fullest.pending.pop() if fullest.pending else None

    def committed(self, slot: int, partition: Partition, record: PartitionRecord) -> None:
        """The slot's partition ended in a file. What the file does not cover is pending again.

        A file that somebody else has written, who was first, has the same first row and may have another end.
        """
        own = self._slots[slot]
        own.open.remove(partition)
        covered = Partition(start=0, stop=record.stop)
        own.pending.extendleft(reversed(plan.pending(partition.stop, self._grid, [covered])))

    def lost(self, slot: int, *, cause: str) -> bool:
        """The slot's worker is lost, and what it had open pending again. Whether to start another one there.

        None is started where there is nothing to be done, or where workers are lost before they do anything.
        GenerationFailedError when a partition was lost too often, or no slot has a worker any more.
        """
        own = self._slots[slot]
        for partition in own.open:
            self._failures[partition.start] += 1
            if self._failures[partition.start] >= self._max_failures:
                raise GenerationFailedError(
                    f"{partition} failed {self._max_failures} times (cluster.max_failures_per_partition). "
                    f"The last actor said: {cause}. What is committed is kept: fix the cause and run the "
                    "same command again"
                )
        own.fruitless += not own.open
        own.pending.extendleft(reversed(own.open))
        own.open.clear()
        own.given_rows = 0
        own.staffed = own.fruitless < _MAX_FRUITLESS and any(s.pending for s in self._slots)
        if not self.done and not any(s.staffed for s in self._slots):
            raise GenerationFailedError(
                f"actors died {own.fruitless} times in a row before they generated anything, and none is "
                f"left. The last one said: {cause}"
            )
        return own.staffed
