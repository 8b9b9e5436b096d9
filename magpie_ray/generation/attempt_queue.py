"""Attempts that wait to start: retries first, then first attempts in the order of their rows.

A retry starts its row again, or continues after the whole turns that an earlier attempt generated well.
Invariants: an attempt that is added and not discarded is taken once.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from magpie_ray.types import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a row.

    number: counts from 1. messages, message_ids: whole turns to continue after, as text and as token ids.
    """

    row_id: int
    number: int = 1
    messages: tuple[Message, ...] = ()
    message_ids: tuple[list[int], ...] = ()

    @property
    def turns(self) -> int:
        """Turns that the attempt continues after."""
        return len(self.messages) // 2


class AttemptQueue:
    """Waiting attempts, by the number of turns that they continue after."""

    def __init__(self) -> None:
        self._first: deque[int] = deque()  # row ids
        self._retries: dict[int, deque[Attempt]] = {}  # by turns; no queue is empty

    @property
    def unstarted(self) -> int:
        """Rows whose first attempt has not been taken."""
        return len(self._first)

    @property
    def continuing(self) -> int:
        """Attempts that continue after one turn or more."""
        return sum(len(attempts) for turns, attempts in self._retries.items() if turns)

    def __bool__(self) -> bool:
        return bool(self._first or self._retries)

    def waiting(self, turns: int) -> int:
        """Attempts that continue after that many turns."""
        return len(self._retries.get(turns, ())) + (0 if turns else len(self._first))

    def due(self, cohort_turns: Iterable[int]) -> list[int]:
        """Numbers of turns for which a new cohort may start, the most urgent first.

        An attempt that continues joins a cohort that has completed as many turns. A cohort of its own starts
        only when no such cohort will come. cohort_turns: turns completed by each cohort in flight.
        """
        due = [0] if self.waiting(0) else []
        if continued := [turns for turns in self._retries if turns]:
            lowest = min(continued)
            due += [lowest] if all(turns >= lowest for turns in cohort_turns) else []
        return due

    def add(self, row_ids: Iterable[int]) -> None:
        """Queue first attempts at rows."""
        self._first.extend(row_ids)

    def add_retry(self, attempt: Attempt) -> None:
        """Queue another attempt at a row."""
        self._retries.setdefault(attempt.turns, deque()).append(attempt)

    def discard(self, rows: range) -> None:
        """Drop all attempts at these rows."""
        self._first = deque(row_id for row_id in self._first if row_id not in rows)
        kept = {
            turns: deque(attempt for attempt in attempts if attempt.row_id not in rows)
            for turns, attempts in self._retries.items()
        }
        self._retries = {turns: attempts for turns, attempts in kept.items() if attempts}

    def take(self, turns: int, size: int | None = None) -> list[Attempt]:
        """Remove and return up to `size` attempts (None: all) that continue after that many turns."""
        taken: list[Attempt] = []
        attempts = self._retries.get(turns, deque())
        size = self.waiting(turns) if size is None else size
        while attempts and len(taken) < size:
            taken.append(attempts.popleft())
        if not attempts:
            self._retries.pop(turns, None)
        while not turns and self._first and len(taken) < size:
            taken.append(Attempt(row_id=self._first.popleft()))
        return taken
