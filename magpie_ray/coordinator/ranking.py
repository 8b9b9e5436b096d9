"""Slots ranked by a key that changes now and then.

A sorted list: a change costs a search and a short move in memory, a question costs nothing. With 10,000 slots
that is microseconds an event, where a look at all of them takes milliseconds.
"""

from bisect import bisect_left, insort
from typing import Any, Generic, TypeVar

# Anything that can be compared with its like.
Key = TypeVar("Key", bound=Any)


class SlotRanking(Generic[Key]):
    """Slots that have a key, ordered by key and then by number."""

    def __init__(self) -> None:
        self._keys: dict[int, Key] = {}
        self._order: list[tuple[Key, int]] = []

    def put(self, slot: int, key: Key | None) -> None:
        """Change the slot's key; None takes it out of the ranking."""
        old = self._keys.get(slot)
        if key == old:
            return
        if old is not None:
            del self._order[bisect_left(self._order, (old, slot))]
            del self._keys[slot]
        if key is not None:
            insort(self._order, (key, slot))
            self._keys[slot] = key

    def key(self, slot: int) -> Key | None:
        """The slot's key, if it has one."""
        return self._keys.get(slot)

    def last(self, *, but: int | None = None) -> tuple[Key, int] | None:
        """The greatest key and its slot, other than the slot `but`."""
        return next((entry for entry in reversed(self._order[-2:]) if entry[1] != but), None)

    def until(self, key: Key) -> list[int]:
        """The slots whose keys are smaller, by number."""
        return sorted(slot for _, slot in self._order[: bisect_left(self._order, (key, -1))])

    def middle(self) -> list[Key]:
        """The key in the middle, or the two around it."""
        number = len(self._order)
        return [key for key, _ in self._order[(number - 1) // 2 : number // 2 + 1]] if number else []
