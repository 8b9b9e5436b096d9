"""Attempts that wait to be started: first ones in the order of their rows, and later ones before them.

A later attempt begins anew, or goes on after the whole turns that an earlier one has ended well. What always
holds: an attempt that was added and not discarded is taken once.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from magpie_ray.types import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a row, which counts from 1: whole turns to go on after, as messages and as their ids."""

    row_id: int
    number: int = 1
    messages: tuple[Message, ...] = ()
    message_ids: tuple[list[int], ...] = ()

    @property
    def turns(self) -> int:
        """Turns that are behind it when it starts."""
        return len(self.messages) // 2


class AttemptQueue:
    """Attempts by the turns that they have behind them."""

    def __init__(self) -> None:
        self._fresh: deque[int] = deque()
        self._later: dict[int, deque[Attempt]] = {}  # by turns; none of them is empty

    @property
    def unstarted(self) -> int:
        """Rows whose first attempt has not been taken."""
        return len(self._fresh)

    @property
    def continuing(self) -> int:
        """Attempts that go on after some turns."""
        return sum(len(attempts) for turns, attempts in self._later.items() if turns)

    def __bool__(self) -> bool:
        return bool(self._fresh or self._later)

    def waiting(self, turns: int) -> int:
        """Attempts with so many turns behind them."""
        return len(self._later.get(turns, ())) + (0 if turns else len(self._fresh))

    def due(self, coming: Iterable[int]) -> list[int]:
        """Turns behind the attempts that a cohort may be started with, the first that there is room for.

        Those that go on after some turns join a cohort that has come so far. They start by themselves only
        when none will: `coming` are the turns behind the cohorts that are under way.
        """
        due = [0] if self.waiting(0) else []
        if later := [turns for turns in self._later if turns]:
            lowest = min(later)
            due += [lowest] if all(turns >= lowest for turns in coming) else []
        return due

    def add(self, row_ids: Iterable[int]) -> None:
        """First attempts at rows."""
        self._fresh.extend(row_ids)

    def add_later(self, attempt: Attempt) -> None:
        """Another attempt at a row."""
        self._later.setdefault(attempt.turns, deque()).append(attempt)

    def discard(self, rows: range) -> None:
        """Rows that are not wanted any more."""
        self._fresh = deque(row_id for row_id in self._fresh if row_id not in rows)
        kept = {
            turns: deque(attempt for attempt in attempts if attempt.row_id not in rows)
            for turns, attempts in self._later.items()
        }
        self._later = {turns: attempts for turns, attempts in kept.items() if attempts}

    def take(self, turns: int, size: int | None = None) -> list[Attempt]:
        """Up to `size` attempts with so many turns behind them, all of them for None; later ones first."""
        taken: list[Attempt] = []
        attempts = self._later.get(turns, deque())
        size = self.waiting(turns) if size is None else size
        while attempts and len(taken) < size:
            taken.append(attempts.popleft())
        if not attempts:
            self._later.pop(turns, None)
        while not turns and self._fresh and len(taken) < size:
            taken.append(Attempt(row_id=self._fresh.popleft()))
        return taken
