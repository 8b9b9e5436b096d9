"""Pure decisions of a running job: which partition to whom, when to replace a worker, when to give up.

A worker is a slot's current actor. Events go in, decisions come out; the job carries them out. What always
holds: a row that is not committed is pending in one slot, or open with one worker or two, never both; a
partition handed out is taken back only when its rows are committed or its worker is lost; while anything is
left to do, some slot has a worker. An event costs no more with ten thousand slots than with ten.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.coordinator.slot import Pace, Slot
from magpie_ray.coordinator.stragglers import Stragglers
from magpie_ray.dataset import partitioning
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition

# Workers of a slot that fail in a row without having been given anything: by then it is not bad luck.
_MAX_FRUITLESS = 3
# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4


class Dispatcher:
    """The state of one run. Call the method of each event; do what it returns.

    With `backwards` every shard is worked on from its end: a second driver on the same build then meets the
    first one in the middle. Without `copies` no partition is ever open twice, as a store without exclusive
    creation wants it.
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
        self._slots = [Slot(deque(reversed(shard) if backwards else shard)) for shard in shards]
        self._grid = grid
        self._copies = copies
        self._max_failures = max_failures_per_partition
        self._failures = defaultdict[int, float](float)  # by the partition's first row
        self._times_lost = Counter[int]()
        self._files = defaultdict[int, list[Partition]](list)  # by cell; those this run has heard of
        self._holders: dict[Partition, list[int]] = {}  # slots, by open partition
        self._num_pending = self._num_open = 0
        self._fullest = SlotRanking[
            tuple[int, int]
        ]()  # by pending partitions, the lower slot last among equals
        self._stragglers = Stragglers(self._slots, self._holders)
        for number in range(len(self._slots)):
            self._refill(number)

    @property
    def num_slots(self) -> int:
        return len(self._slots)

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
        return partitioning.rows_in(self._slots[slot].open)

    def to_redo(self, slot: int) -> list[Partition]:
        """What the slot's worker would leave undone if it were lost now; a copy of some of it may be open."""
        own = self._slots[slot]
        return [*own.open, *own.behind]

    def add_slot(self) -> int:
        """Room for another actor, which takes from the shards of the others; its number."""
        self._slots.append(Slot(deque()))
        return len(self._slots) - 1

    def progress(
        self, slot: int, *, started: int, finished: int, live_window: int, now: float
    ) -> list[Partition]:
        """The slot's worker has begun and finished so many rows since it started: what to give it now.

        It gets partitions until its unstarted rows fill its live window, counting those that are on their way
        to it. Its own shard comes first. From another shard it takes only when it is about to run dry, and
        one at a time, so that a worker that is up early leaves something to the others. When nothing is
        pending anywhere, it gets a copy of what a much slower worker has open.
        """
        own = self._slots[slot]
        if own.pace:
            own.pace.note(finished, now)
            self._stragglers.note(slot)
        if own.behind:
            return []  # it is ending
        given: list[Partition] = []
        while (unstarted := own.given_rows - started) < live_window:
            if not own.pending and (given or unstarted * _STEAL_BELOW >= live_window):
                break
            partition = self._next(slot)
            if partition is None and self._copies:
                partition = self._stragglers.worth_copying(slot, now)
            if partition is None:
                break
            own.pace = own.pace or Pace.starting(now)
            self._open(slot, partition)
            own.given_rows += partition.num_rows
            own.fruitless = 0.0
            given.append(partition)
        return given

    def _next(self, slot: int) -> Partition | None:
        """Of its own shard the first, of the fullest other one the last."""
        own = self._slots[slot]
        if own.pending:
            partition = own.pending.popleft()
        elif fullest := self._fullest.last():
            slot = fullest[1]
            partition = self._slots[slot].pending.pop()
        else:
            return None
        self._refill(slot)
        return partition

    def _refill(self, slot: int, *front: Partition) -> None:
        """Put partitions before those that are pending there; to be called after every other change, too."""
        pending = self._slots[slot].pending
        pending.extendleft(reversed(front))
        before, _ = self._fullest.key(slot) or (0, 0)
        self._num_pending += len(pending) - before
        self._fullest.put(slot, (len(pending), -slot) if pending else None)

    def _open(self, slot: int, partition: Partition) -> None:
        self._slots[slot].open.append(partition)
        holders = self._holders.setdefault(partition, [])
        holders.append(slot)
        self._num_open += 1
        self._stragglers.note(*holders)

    def _close(self, slot: int, partition: Partition, *, dropped: bool = False) -> None:
        self._slots[slot].close(partition, dropped=dropped)
        self._let_go(slot, partition)

    def _let_go(self, slot: int, partition: Partition) -> None:
        holders = self._holders[partition]
        self._stragglers.note(*holders)
        self._num_open -= 1
        holders.remove(slot)
        if not holders:
            del self._holders[partition]

    def committed(self, slot: int, partition: Partition, files: Iterable[Partition]) -> list[int]:
        """The slot's partition ended in these files, its own or such as were there: who is to drop it.

        What they do not cover is left to another worker that has the partition, or pending again.
        """
        self._note(files)
        if slot not in self._holders.get(partition, ()):
            return []  # told to drop it, or told twice
        self._close(slot, partition)
        holders = sorted(self._holders.get(partition, ()))
        left = self._uncovered(partition)
        self._slots[slot].behind += left
        if left and not holders:
            self._refill(slot, *left)
        if left:
            return []
        for holder in holders:
            self._close(holder, partition, dropped=True)
        return holders

    def found(self, files: Iterable[Partition]) -> list[tuple[int, Partition]]:
        """Somebody else has committed these files: which slots are to drop which partitions."""
        touched = self._note(files)
        drops = []
        for number, slot in enumerate(self._slots if touched else ()):
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
        """Remember files; returns the cells they are in."""
        touched = set()
        for file in files:
            touched.add(self._cell(file))
            self._files[self._cell(file)].append(file)
        return touched

    def _cell(self, partition: Partition) -> int:
        return partition.start // self._grid

    def _uncovered(self, partition: Partition) -> list[Partition]:
        """What of a partition is in no file that this run has heard of."""
        files = self._files.get(self._cell(partition))
        if not files:
            return [partition]
        before = [Partition(start=0, stop=partition.start)] if partition.start else []
        return partitioning.pending(partition.stop, self._grid, [*before, *files])

    def lost(self, slot: int, *, cause: str, loss: Loss) -> bool:
        """The slot's worker is lost, and what it had open pending again. Whether to start another one there.

        None is started where there is nothing to be done, or where workers are lost before they do anything.
        GenerationFailedError when a partition was lost too often, or no slot has a worker any more.
        """
        own = self._slots[slot]
        for partition in own.open:
            self._failures[partition.start] += loss.value
            self._times_lost[partition.start] += loss is not Loss.LEFT
            if loss.value and self._failures[partition.start] >= self._max_failures:
                raise GenerationFailedError(
                    f"{partition} failed {self._times_lost[partition.start]} times "
                    f"(cluster.max_failures_per_partition is {self._max_failures}; actors that die without "
                    f"a word count for {Loss.DIED.value:g}). The last one said: {cause}. What is committed "
                    "is kept: fix the cause and run the same command again"
                )
        if not own.given_rows:
            own.fruitless += loss.value
        for partition in own.open:
            self._let_go(slot, partition)
        left = [hole for p in own.open if p not in self._holders for hole in self._uncovered(p)]
        self._refill(slot, *left)
        own.open.clear()
        own.behind.clear()
        own.given_rows = own.ended_rows = 0
        own.pace = None
        self._stragglers.note(slot)
        own.staffed = own.fruitless < _MAX_FRUITLESS and self._num_pending > 0
        if not self.done and not any(s.staffed for s in self._slots):
            raise GenerationFailedError(
                "actors died again and again before they generated anything, and none is left. The last one "
                f"said: {cause}. What is committed is kept: fix the cause and run the same command again"
            )
        return own.staffed
