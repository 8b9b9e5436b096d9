"""The decisions of a running job: which partition goes to which worker, when to replace a worker or give up.

A worker is a slot's current actor. Events go in and decisions come out; the job carries them out.

Invariants: a row that is not committed is either pending in exactly one slot or open with one or two workers.
A partition that was given is taken back only when its rows are committed or its worker is lost. While
anything is left to do, some slot has a worker. An event costs no more with ten thousand slots than with ten.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.coordinator.slot import Slot
from magpie_ray.coordinator.stragglers import Stragglers
from magpie_ray.dataset import partitioning
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition

# Losses in a row of a slot's workers that had not been given anything: by then it is not bad luck.
_MAX_FRUITLESS = 3
# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4


class Dispatcher:
    """The state of one run. Call the method of each event, and do what it returns.

    backwards: work on every shard from its end, so that a second driver on the same build meets the first one
    in the middle. copies: a partition may be open twice; not so where a store can't create exclusively.
    slots, fullest, stragglers: the state, to look at.
    """

    def __init__(
        self,
        pending: Sequence[Partition],
        *,
        num_slots: int,
        grid: int,
        max_failures_per_partition: int,
        backwards: bool = False,
        copies: bool = True,
    ) -> None:
        shards = partitioning.shards(pending, num_slots)
        self.slots = [Slot(deque(reversed(shard) if backwards else shard)) for shard in shards]
        self._grid = grid
        self._copies = copies
        self._max_failures = max_failures_per_partition
        self._failures = defaultdict[int, float](float)  # by the partition's first row
        self._times_lost = Counter[int]()
        self._files = defaultdict[int, list[Partition]](list)  # by cell; those this run knows
        self._holders: dict[Partition, list[int]] = {}  # slots, by open partition
        self._num_pending = self._num_open = 0
        # By pending partitions, the lower slot last among equals.
        self.fullest = SlotRanking[tuple[int, int]]()
        self.stragglers = Stragglers(self.slots, self._holders)
        for number in range(len(self.slots)):
            self._refill(number)

    @property
    def num_slots(self) -> int:
        return len(self.slots)

    @property
    def done(self) -> bool:
        """Whether nothing is pending or open any more."""
        return self.num_left == 0

    @property
    def num_left(self) -> int:
        """Partitions that are pending or open, copies included."""
        return self._num_pending + self._num_open

    def open_rows(self, slot: int) -> int:
        """Rows of the partitions that the slot's worker has open."""
        return partitioning.rows_in(self.slots[slot].open)

    def to_redo(self, slot: int) -> list[Partition]:
        """Partitions that are undone if the slot's worker is lost now. Some may be open elsewhere, too."""
        own = self.slots[slot]
        return [*own.open, *own.behind]

    def add_slot(self) -> int:
        """Make room for another actor, which takes from the shards of the others. Returns its number."""
        self.slots.append(Slot(deque()))
        return len(self.slots) - 1

    def progress(
        self, slot: int, *, started: int, finished: int, live_window: int, now: float
    ) -> list[Partition]:
        """The slot's worker has begun and finished so many rows since it started. Returns what to give it.

        It gets partitions until its unstarted rows fill its live window; partitions on their way to it count.
        Its own shard comes first. It takes from another shard only when it is about to run dry, one partition
        at a time, so that a worker that is up early leaves something to the others. When nothing is pending
        anywhere, it gets a copy of what a much slower worker has open.
        """
        own = self.slots[slot]
        if own.pace:
            own.pace.note(finished, now)
            self.stragglers.note(slot)
        if own.behind:
            return []  # it is ending
        given: list[Partition] = []
        while (unstarted := own.given_rows - started) < live_window:
            if not own.pending and (given or unstarted * _STEAL_BELOW >= live_window):
                break
            partition = self._next(slot)
            if partition is None and self._copies:
                partition = self.stragglers.worth_copying(slot, now)
            if partition is None:
                break
            own.give(partition, now)
            holders = self._holders.setdefault(partition, [])
            holders.append(slot)
            self._num_open += 1
            self.stragglers.note(*holders)
            given.append(partition)
        return given

    def _next(self, slot: int) -> Partition | None:
        """The first partition of its own shard, or the last one of the fullest other shard."""
        own = self.slots[slot]
        if own.pending:
            partition = own.pending.popleft()
        elif fullest := self.fullest.last():
            slot = fullest[1]
            partition = self.slots[slot].pending.pop()
        else:
            return None
        self._refill(slot)
        return partition

    def _refill(self, slot: int, *front: Partition) -> None:
        """Put partitions first in the slot's shard. Called after every other change of a shard, too."""
        pending = self.slots[slot].pending
        pending.extendleft(reversed(front))
        before, _ = self.fullest.key(slot) or (0, 0)
        self._num_pending += len(pending) - before
        self.fullest.put(slot, (len(pending), -slot) if pending else None)

    def _close(self, slot: int, partition: Partition, *, dropped: bool = False) -> None:
        self.slots[slot].close(partition, dropped=dropped)
        self._let_go(slot, partition)

    def _let_go(self, slot: int, partition: Partition) -> None:
        holders = self._holders[partition]
        self.stragglers.note(*holders)
        self._num_open -= 1
        holders.remove(slot)
        if not holders:
            del self._holders[partition]

    def committed(self, slot: int, partition: Partition, files: Iterable[Partition]) -> list[int]:
        """The slot's partition ended in these files, some perhaps of others. Returns the slots that drop it.

        Rows that the files do not cover are left to another worker that has the partition, or pending again.
        """
        self._note(files)
        if slot not in self._holders.get(partition, ()):
            return []  # it was told to drop the partition, or the event came twice
        self._close(slot, partition)
        holders = sorted(self._holders.get(partition, ()))
        left = self._uncovered(partition)
        self.slots[slot].behind += left
        if left and not holders:
            self._refill(slot, *left)
        if left:
            return []
        for holder in holders:
            self._close(holder, partition, dropped=True)
        return holders

    def found(self, files: Iterable[Partition]) -> list[tuple[int, Partition]]:
        """Somebody else has committed these files. Returns which slots drop which partitions."""
        touched = self._note(files)
        drops = []
        for number, slot in enumerate(self.slots if touched else ()):
            if any(self._cell(p) in touched for p in slot.pending):
                slot.pending = deque(
                    hole for partition in slot.pending for hole in self._uncovered(partition)
                )
                self._refill(number)
            for partition in list(slot.open):
                if self._cell(partition) in touched and not self._uncovered(partition):
                    self._close(number, partition, dropped=True)
                    drops.append((number, partition))
        return drops

    def _note(self, files: Iterable[Partition]) -> set[int]:
        """Remember files; returns their cells."""
        touched = set()
        for file in files:
            touched.add(self._cell(file))
            self._files[self._cell(file)].append(file)
        return touched

    def _cell(self, partition: Partition) -> int:
        return partition.start // self._grid

    def _uncovered(self, partition: Partition) -> list[Partition]:
        """The parts of a partition that are in no file that this run knows."""
        files = self._files.get(self._cell(partition))
        if not files:
            return [partition]
        before = [Partition(start=0, stop=partition.start)] if partition.start else []
        return partitioning.pending(partition.stop, self._grid, [*before, *files])

    def lost(self, slot: int, *, cause: str, loss: Loss) -> bool:
        """The slot's worker is lost; its open partitions are pending again. Returns whether to replace it.

        It is not replaced where nothing is to be done, or where workers are lost before they do anything.
        GenerationFailedError when a partition was lost too often, or no slot has a worker any more.
        """
        own = self.slots[slot]
        for partition in own.open:
            self._failures[partition.start] += loss.value
            self._times_lost[partition.start] += loss is not Loss.LEFT
            if loss.value and self._failures[partition.start] >= self._max_failures:
                raise GenerationFailedError(
                    f"{partition} failed {self._times_lost[partition.start]} times "
                    f"(cluster.max_failures_per_partition is {self._max_failures}; actors that die without "
                    f"a word count for {Loss.DIED.value:g}). The last cause: {cause}. Committed rows are "
                    "kept: fix the cause and run the same command again"
                )
        if not own.given_rows:
            own.fruitless += loss.value
        for partition in own.open:
            self._let_go(slot, partition)
        left = [hole for p in own.open if p not in self._holders for hole in self._uncovered(p)]
        self._refill(slot, *left)
        own.clear()
        self.stragglers.note(slot)
        own.staffed = own.fruitless < _MAX_FRUITLESS and self._num_pending > 0
        if not self.done and not any(s.staffed for s in self.slots):
            raise GenerationFailedError(
                "actors died again and again before they generated anything, and none is left. The last "
                f"cause: {cause}. Committed rows are kept: fix the cause and run the same command again"
            )
        return own.staffed
