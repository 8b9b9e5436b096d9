"""The decisions of a running job: which partition goes to which worker, and when a partition is given up.

A worker is a slot's current actor. Events go in and decisions come out; the job carries them out.

Invariants: a row that is not committed is either pending, in one slot or among the returned partitions, or
open with one or two workers. A partition that was given is taken back only when its rows are committed or its
worker is lost. Any worker that runs dry gets some of what is pending, except that a partition waits for a
worker on a node on which it has not failed. An event costs no more with ten thousand slots than with ten.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.coordinator.returned import ReturnedPartitions
from magpie_ray.coordinator.slot import Slot
from magpie_ray.coordinator.stragglers import Stragglers
from magpie_ray.dataset import partitioning
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition

# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4
# What another failure on the same node counts while there are nodes that the partition has not tried. It gets
# there only where nobody works on these others, perhaps for good.
_REPEAT = 0.25


class Dispatcher:
    """The state of one run. Call the method of each event, and do what it returns.

    backwards: work on every shard from its end, so that a second driver on the same build meets the first one
    in the middle. copies: a partition may be open twice; not so where a store can't create exclusively.
    slots, returned, fullest, stragglers: the state, to look at.
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
        self._failed_on: dict[int, frozenset[str]] = {}  # nodes, likewise
        self._times_lost = Counter[int]()
        self._nodes = frozenset[str]()  # those that could hold a worker, and those that do
        self._workers_on = Counter[str]()
        self.returned = ReturnedPartitions()
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
    def num_pending(self) -> int:
        """Partitions that no worker has."""
        return self._num_pending + len(self.returned)

    @property
    def num_left(self) -> int:
        """Partitions that are pending or open, copies included."""
        return self.num_pending + self._num_open

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

    def note_nodes(self, nodes: frozenset[str]) -> None:
        """These nodes could hold a worker now."""
        self._nodes = nodes

    def placed(self, slot: int, node: str) -> None:
        """The slot's worker is on that node."""
        self.slots[slot].node = node

    def progress(
        self, slot: int, *, started: int, finished: int, live_window: int, now: float
    ) -> list[Partition]:
        """The slot's worker has begun and finished so many rows since it started. Returns what to give it.

        It gets partitions until its unstarted rows fill its live window; partitions on their way to it count.
        The first one may be one that a lost worker had, if it has not failed on this node. Then comes the
        worker's own shard. It takes from another shard only when it is about to run dry, one partition
        at a time, so that a worker that is up early leaves something to the others. When nothing is pending
        anywhere, it gets a copy of what a much slower worker has open.
        """
        own = self.slots[slot]
        if not own.heard:
            own.heard = True
            self._workers_on[own.node] += 1
        if own.pace:
            own.pace.note(finished, now)
            self.stragglers.note(slot)
        if own.behind:
            return []  # it is ending
        given: list[Partition] = []
        while (unstarted := own.given_rows - started) < live_window:
            if not own.pending and (given or unstarted * _STEAL_BELOW >= live_window):
                break
            partition = None if given else self._take_returned(own.node)
            partition = partition or self._next(slot)
            if partition is None:
                partition = self.returned.take_anywhere(self._workers_on.keys())
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

    def _take_returned(self, node: str) -> Partition | None:
        """A partition that did not fail on the node, or failed on all nodes that there are."""
        if not self.returned:
            return None
        nodes = self._nodes or self._workers_on.keys()
        return self.returned.take(node) or self.returned.take_anywhere(nodes)

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

    def _refill(self, slot: int) -> None:
        """Called after every change of a slot's shard."""
        pending = self.slots[slot].pending
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
        tried = self._failed_on.get(partition.start, frozenset())
        self._note(files)
        if slot not in self._holders.get(partition, ()):
            return []  # it was told to drop the partition, or the event came twice
        self._close(slot, partition)
        holders = sorted(self._holders.get(partition, ()))
        left = self._uncovered(partition)
        self.slots[slot].behind += left
        if left and not holders:
            # The worker is about to end: its node is no good place for the rest.
            self.returned.put(left, tried | {self.slots[slot].node})
        if left:
            return []
        for holder in holders:
            self._close(holder, partition, dropped=True)
        return holders

    def found(self, files: Iterable[Partition]) -> list[tuple[int, Partition]]:
        """Somebody else has committed these files. Returns which slots drop which partitions."""
        touched = self._note(files)
        drops = []
        if any(self._cell(partition) in touched for partition in self.returned):
            self.returned.cut(self._uncovered)
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
        """Remember files, and forget how often their rows have failed; returns their cells."""
        touched = set()
        for file in files:
            touched.add(self._cell(file))
            for failures in (self._failures, self._failed_on, self._times_lost):
                failures.pop(file.start, None)
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

    def lost(self, slot: int, *, cause: str, loss: Loss) -> None:
        """The slot's worker is lost; its open partitions are pending again.

        GenerationFailedError when one of them has failed on too many nodes.
        """
        own = self.slots[slot]
        for partition in own.open:
            self._count(partition, own.node, cause, loss)
        for partition in reversed(own.open):
            self._let_go(slot, partition)
            if partition not in self._holders:
                self._return(partition)
        if own.heard:
            self._workers_on[own.node] -= 1
            if not self._workers_on[own.node]:
                del self._workers_on[own.node]
        own.clear()
        self.stragglers.note(slot)

    def _return(self, partition: Partition) -> None:
        """What is left of a partition is pending again, and has failed where all of it failed."""
        holes, tried = self._uncovered(partition), self._failed_on.get(partition.start, frozenset())
        for hole in holes if tried else ():
            self._failed_on[hole.start] = tried
        self.returned.put(holes, tried)

    def _count(self, partition: Partition, node: str, cause: str, loss: Loss) -> None:
        """Count a failure of an open partition: in full once a node, while it has not tried all nodes."""
        start, tried = partition.start, self._failed_on.get(partition.start, frozenset())
        self._times_lost[start] += loss is not Loss.LEFT
        if not loss.value:
            return
        self._failed_on[start] = tried | {node}
        is_again = node in tried and not (self._nodes or self._workers_on.keys()) <= tried
        self._failures[start] += loss.value * (_REPEAT if is_again else 1.0)
        if self._failures[start] >= self._max_failures:
            raise GenerationFailedError(
                f"{partition} failed {self._times_lost[start]} times (cluster.max_failures_per_partition is "
                f"{self._max_failures}; nodes that failed: {len(self._failed_on[start])}; actors that die "
                f"without a word count for {Loss.DIED.value:g}). The last cause: {cause}. Committed rows are "
                "kept: fix the cause and run the same command again"
            )
