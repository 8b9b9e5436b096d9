"""Attempts that wait to start: retries first, then first attempts in the order of their rows.

A row that was rejected often waits until all rows that were added with it have started, such as those of its
partition: it takes no place that one of them could have, and is tried at once when its file waits for it.

A retry starts its row again, or continues after the whole turns that an earlier attempt generated well.
Invariants: an attempt that is added and not discarded is taken once.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from magpie_ray.types import Message

# Where half of the attempts are rejected, one row in 65,000 is rejected so many times.
OFTEN = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One try at a row.

    number: counts from 1. messages, message_ids: whole turns to continue after, as text and as token ids.
    given: how many of them a source gave.
    """

    row_id: int
    number: int = 1
    messages: tuple[Message, ...] = ()
    message_ids: tuple[list[int], ...] = ()
    given: int = 0

    @property
    def turns(self) -> int:
        """Turns, at least in part generated, that the attempt continues after."""
        return max(0, len(self.messages) // 2 - self.given // 2)


@dataclass(slots=True, eq=False)
class _Batch:
    """Rows that were added together. first: those that have not started. often: attempts at the others that
    were rejected often."""

    rows: Collection[int]
    first: deque[int]
    often: deque[Attempt] = field(default_factory=deque)


class AttemptQueue:
    """Waiting attempts, by the number of turns that they continue after."""

    def __init__(self) -> None:
        self._batches: deque[_Batch] = deque()  # those with rows that have not started
        self._retries: dict[int, deque[Attempt]] = {}  # by turns; no queue is empty

    @property
    def unstarted(self) -> int:
        """Rows whose first attempt has not been taken."""
        return sum(len(batch.first) for batch in self._batches)

    @property
    def continuing(self) -> int:
        """Attempts that continue after one turn or more."""
        return sum(len(attempts) for turns, attempts in self._retries.items() if turns)

    def __bool__(self) -> bool:
        return bool(self._batches or self._retries)

    def waiting(self, turns: int) -> int:
        """Attempts that continue after that many turns."""
        in_batches = 0 if turns else sum(len(batch.first) + len(batch.often) for batch in self._batches)
        return len(self._retries.get(turns, ())) + in_batches

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
        """Queue first attempts at rows, such as those of a partition."""
        rows = row_ids if isinstance(row_ids, range) else tuple(row_ids)
        if rows:
            self._batches.append(_Batch(rows, deque(rows)))

    def add_retry(self, attempt: Attempt) -> None:
        """Queue another attempt at a row."""
        if attempt.number > OFTEN and not attempt.turns:
            for batch in self._batches:
                if attempt.row_id in batch.rows:
                    batch.often.append(attempt)
                    return
        self._retries.setdefault(attempt.turns, deque()).append(attempt)

    def discard(self, rows: range) -> None:
        """Drop all attempts at these rows."""
        kept = {
            turns: deque(attempt for attempt in attempts if attempt.row_id not in rows)
            for turns, attempts in self._retries.items()
        }
        self._retries = {turns: attempts for turns, attempts in kept.items() if attempts}
        batches, self._batches = self._batches, deque()
        for batch in batches:
            batch.first = deque(row_id for row_id in batch.first if row_id not in rows)
            batch.often = deque(attempt for attempt in batch.often if attempt.row_id not in rows)
            if batch.first:
                self._batches.append(batch)
            else:
                self._release(batch)

    def take(self, turns: int, size: int | None = None) -> list[Attempt]:
        """Remove and return up to `size` attempts (None: all) that continue after that many turns."""
        return [
            self._next(turns)
            for _ in range(min(self.waiting(turns), self.waiting(turns) if size is None else size))
        ]

    def _next(self, turns: int) -> Attempt:
        if attempts := self._retries.get(turns):
            attempt = attempts.popleft()
            if not attempts:
                del self._retries[turns]
            return attempt
        batch = self._batches[0]
        attempt = Attempt(row_id=batch.first.popleft())
        if not batch.first:
            self._release(self._batches.popleft())
        return attempt

    def _release(self, batch: _Batch) -> None:
        """All rows of the batch have started: those that were rejected often are what it waits for."""
        if batch.often:
            self._retries.setdefault(0, deque()).extend(batch.often)
