"""Pure decisions of a running job: which partition to whom, when to replace a worker, when to give up.

A worker is a slot's current actor. Events go in, decisions come out; the job carries them out. What always
holds: a row that is not committed is pending in one slot, or open with one worker or two, never both; a
partition handed out is taken back only when its rows are committed or its worker is lost; while anything is
left to do, some slot has a worker.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from statistics import median

from magpie_ray import plan
from magpie_ray.errors import GenerationFailedError
from magpie_ray.pace import Pace
from magpie_ray.types import Partition

# Workers of a slot that fail in a row without having been given anything: by then it is not bad luck.
_MAX_FRUITLESS = 3
# A worker takes from other shards when its unstarted rows are below this part (1/4) of its live window.
_STEAL_BELOW = 4
# An open partition gets a second worker when that one is expected to end it so many times sooner.
_COPY_GAIN = 1.5


class Loss(Enum):
    """How a worker was lost, and how much that counts against what it was working on.

    FAILED: it said why, and would probably say so again. DIED: without a word, which may be the work's fault
    (no memory, a crash) or somebody else's (kill -9), so that it counts for a quarter. NODE: with its node,
    which on the spot market is everyday, and counts only so much that it ends some time. LEFT: on notice.
    """

    FAILED = 1.0
    DIED = 0.25
    NODE = 0.05
    LEFT = 0.0


@dataclass(slots=True)
class _Slot:
    """One actor's share: its shard's pending partitions, and what its worker has open.

    given_rows: rows given to the current worker. ended_rows: those of them that it finished in partitions
    that are not open any more. fruitless: what workers count that were lost in a row before they were given
    anything. staffed: whether there is, or is to be, a worker.
    """

    pending: deque[Partition]
    open: list[Partition] = field(default_factory=list)
    given_rows: int = 0
    ended_rows: int = 0
    pace: Pace | None = None
    fruitless: float = 0.0
    staffed: bool = True

    def close(self, partition: Partition, *, dropped: bool = False) -> None:
        """The partition is not open any more: all of it was finished, or the worker is told to drop it."""
        unfinished = min(partition.num_rows, self.unfinished(partition)) if dropped else 0
        self.ended_rows += partition.num_rows - unfinished
        self.open.remove(partition)

    def unfinished(self, last: Partition) -> int:
        """Rows that are to be finished of its open partitions up to the last; they are finished in order."""
        rows = sum(p.num_rows for p in self.open[: self.open.index(last) + 1])
        return max(0, rows - max(0, self.pace.finished - self.ended_rows)) if self.pace else rows

    def seconds_left(self, partition: Partition, now: float) -> float:
        """Until the worker is done with its open partitions up to this one."""
        assert self.pace is not None, "nothing is open before anything was given"
        return self.pace.seconds_left(self.unfinished(partition), now)


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
        shards = plan.shards(pending, num_slots)
        self._slots = [_Slot(deque(reversed(shard) if backwards else shard)) for shard in shards]
        self._grid = grid
        self._copies = copies
        self._max_failures = max_failures_per_partition
        self._failures = defaultdict[int, float](float)  # by the partition's first row
        self._times_lost = Counter[int]()
        self._files = defaultdict[int, list[Partition]](list)  # by cell; those this run has heard of

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    @property
    def done(self) -> bool:
        """Whether nothing is pending or open any more."""
        return not any(slot.pending or slot.open for slot in self._slots)

    @property
    def num_left(self) -> int:
        """Partitions that are pending or open, copies included."""
        return sum(len(slot.pending) + len(slot.open) for slot in self._slots)

    def open_rows(self, slot: int) -> int:
        """Rows of the partitions that the slot's worker has open."""
        return sum(partition.num_rows for partition in self._slots[slot].open)

    def add_slot(self) -> int:
        """Room for another actor, which takes from the shards of the others; its number."""
        self._slots.append(_Slot(deque()))
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
        given: list[Partition] = []
        while (unstarted := own.given_rows - started) < live_window:
            if not own.pending and (given or unstarted * _STEAL_BELOW >= live_window):
                break
            partition = self._next(own) or self._copy(own, now)
            if partition is None:
                break
            own.pace = own.pace or Pace.starting(now)
            own.open.append(partition)
            own.given_rows += partition.num_rows
            own.fruitless = 0.0
            given.append(partition)
        return given

    def _next(self, own: _Slot) -> Partition | None:
        if own.pending:
            return own.pending.popleft()
        fullest = max(self._slots, key=lambda slot: len(slot.pending))
        return fullest.pending.pop() if fullest.pending else None

    def _copy(self, own: _Slot, now: float) -> Partition | None:
        """The last open partition of the worker that takes longest, if `own` would be done much sooner."""
        if not self._copies:
            return None
        holders = Counter(partition for slot in self._slots for partition in slot.open)
        others = [
            (slot.seconds_left(partition, now), partition)
            for slot in self._slots
            for partition in [p for p in slot.open if holders[p] == 1][-1:]
            if slot is not own
        ]
        rate = self._rate(own)
        if not others or rate is None:
            return None
        seconds, partition = max(others)
        unfinished = own.unfinished(own.open[-1]) if own.open else 0
        return partition if seconds > _COPY_GAIN * (unfinished + partition.num_rows) / rate else None

    def _rate(self, own: _Slot) -> float | None:
        """Rows/s of a worker, or, before its first row, those of a middling one."""
        if own.pace and (rate := own.pace.rows_per_second):
            return rate
        rates = [rate for slot in self._slots if slot.pace and (rate := slot.pace.rows_per_second)]
        return median(rates) if rates else None

    def committed(self, slot: int, partition: Partition, files: Iterable[Partition]) -> list[int]:
        """The slot's partition ended in these files, its own or such as were there: who is to drop it.

        What they do not cover is left to another worker that has the partition, or pending again.
        """
        self._note(files)
        own = self._slots[slot]
        if partition not in own.open:
            return []  # told to drop it, or told twice
        own.close(partition)
        holders = [number for number, other in enumerate(self._slots) if partition in other.open]
        left = self._uncovered(partition)
        if left and not holders:
            own.pending.extendleft(reversed(left))
        if left:
            return []
        for holder in holders:
            self._slots[holder].close(partition, dropped=True)
        return holders

    def found(self, files: Iterable[Partition]) -> list[tuple[int, Partition]]:
        """Somebody else has committed these files: which slots are to drop which partitions."""
        touched = self._note(files)
        drops = []
        for number, slot in enumerate(self._slots):
            if any(self._cell(p) in touched for p in slot.pending):
                slot.pending = deque(
                    hole for partition in slot.pending for hole in self._uncovered(partition)
                )
            for partition in list(slot.open):
                if self._cell(partition) in touched and not self._uncovered(partition):
                    slot.close(partition, dropped=True)
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
        return plan.pending(partition.stop, self._grid, [*before, *files])

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
        if not own.open:
            own.fruitless += loss.value
        others = {partition for other in self._slots if other is not own for partition in other.open}
        left = [hole for p in own.open if p not in others for hole in self._uncovered(p)]
        own.pending.extendleft(reversed(left))
        own.open.clear()
        own.given_rows = own.ended_rows = 0
        own.pace = None
        own.staffed = own.fruitless < _MAX_FRUITLESS and any(s.pending for s in self._slots)
        if not self.done and not any(s.staffed for s in self._slots):
            raise GenerationFailedError(
                "actors died again and again before they generated anything, and none is left. The last one "
                f"said: {cause}. What is committed is kept: fix the cause and run the same command again"
            )
        return own.staffed
