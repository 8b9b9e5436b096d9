"""Finds the open partition that is worth a second worker, as the end of a job waits for its slowest one.

Invariants: the answer is that of a look at all slots; an event costs no more with ten thousand slots than
with ten.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.coordinator.slot import Slot
from magpie_ray.types import Partition

# An open partition gets a second worker that is expected to finish it so many times sooner.
_COPY_GAIN = 1.5


class Stragglers:
    """Ranks slots by when their workers will be done. holders: the slots that have each open partition open.

    Rankings are brought up to date only when they are asked, and only for slots that `note` was called for:
    nobody asks while anything is pending.
    """

    def __init__(self, slots: Sequence[Slot], holders: Mapping[Partition, Sequence[int]]) -> None:
        self._slots = slots
        self._holders = holders
        self._changed = set[int]()
        self._slowest = SlotRanking[tuple[float, Partition]]()  # by seconds left at the worker's rate
        self._stillest = SlotRanking[tuple[float, Partition]]()  # by how long ago a row ended
        self._rates = SlotRanking[float]()  # rows/s

    def note(self, *slots: int) -> None:
        """Open partitions, their holders or the finished rows of these slots have changed."""
        self._changed.update(slots)

    def worth_copying(self, slot: int, now: float) -> Partition | None:
        """The last open partition of the slowest worker, if the slot would finish it much sooner."""
        self._rank()
        longest = [ranking.last(but=slot) for ranking in (self._slowest, self._stillest)]
        others = [
            (self._slots[other].seconds_left(partition, now), partition)
            for (_, partition), other in filter(None, longest)
        ]
        own = self._slots[slot]
        # Before its first row a worker is taken for a middling one.
        if (rate := own.rows_per_second) is None and (middle := self._rates.middle()):
            rate = mean(middle)
        if not others or not rate:
            return None
        seconds, partition = max(others)
        unfinished = own.unfinished(own.open[-1]) if own.open else 0
        return partition if seconds > _COPY_GAIN * (unfinished + partition.num_rows) / rate else None

    def _rank(self) -> None:
        """Bring the rankings up to date.

        The seconds left are those at the worker's rate or those that it stood still, whichever are more. The
        rank in each of the two changes only with the worker's own events.
        """
        for number in self._changed:
            slot = self._slots[number]
            rate = slot.rows_per_second
            alone = [partition for partition in slot.open if len(self._holders[partition]) == 1]
            rows = slot.unfinished(alone[-1]) if alone else 0
            self._rates.put(number, rate)
            self._slowest.put(number, (rows / rate, alone[-1]) if rows and rate else None)
            self._stillest.put(number, (-slot.pace.moved, alone[-1]) if rows and slot.pace else None)
        self._changed.clear()
