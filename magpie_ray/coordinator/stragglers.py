"""Which open partition is worth a second worker: the end of a job waits for its slowest worker.

What always holds: what it says is what a look at all slots would say; an event costs no more with ten
thousand slots than with ten.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.coordinator.slot import Slot
from magpie_ray.types import Partition

# An open partition gets a second worker when that one is expected to end it so many times sooner.
_COPY_GAIN = 1.5


class Stragglers:
    """Ranks slots by when their workers will be done.

    It looks at the slots and at who holds each open partition when it is asked, and then at those alone of
    which `note` was called since: nobody asks while anything is pending.
    """

    def __init__(self, slots: Sequence[Slot], holders: Mapping[Partition, Sequence[int]]) -> None:
        self._slots = slots
        self._holders = holders
        self._changed = set[int]()
        self._slowest = SlotRanking[tuple[float, Partition]]()  # by seconds left at its rate
        self._stillest = SlotRanking[tuple[float, Partition]]()  # by how long ago a row ended
        self._rates = SlotRanking[float]()  # rows/s

    def note(self, *slots: int) -> None:
        """Something has changed there: what is open, who holds it, or how many rows are finished."""
        self._changed.update(slots)

    def worth_copying(self, slot: int, now: float) -> Partition | None:
        """The last open partition of the worker that takes longest, if this one would be done much sooner."""
        self._rank()
        longest = [ranking.last(but=slot) for ranking in (self._slowest, self._stillest)]
        others = [
            (self._slots[other].seconds_left(partition, now), partition)
            for (_, partition), other in filter(None, longest)
        ]
        own = self._slots[slot]
        rate = self._rate(own)
        if not others or rate is None:
            return None
        seconds, partition = max(others)
        unfinished = own.unfinished(own.open[-1]) if own.open else 0
        return partition if seconds > _COPY_GAIN * (unfinished + partition.num_rows) / rate else None

    def _rank(self) -> None:
        """Sort those slots anew of which something was heard: each by its last partition that nobody copies.

        A worker's seconds left are what its rate says or what it has stood still, whichever is more: its rank
        in each of the two changes with its own events alone.
        """
        for number in self._changed:
            slot = self._slots[number]
            rate = slot.pace.rows_per_second if slot.pace else None
            alone = [partition for partition in slot.open if len(self._holders[partition]) == 1]
            rows = slot.unfinished(alone[-1]) if alone else 0
            self._rates.put(number, rate or None)
            self._slowest.put(number, (rows / rate, alone[-1]) if rows and rate else None)
            self._stillest.put(number, (-slot.pace.moved, alone[-1]) if rows and slot.pace else None)
        self._changed.clear()

    def _rate(self, own: Slot) -> float | None:
        """Rows/s of a worker, or, before its first row, those of a middling one."""
        if own.pace and (rate := own.pace.rows_per_second):
            return rate
        middle = self._rates.middle()
        return mean(middle) if middle else None
