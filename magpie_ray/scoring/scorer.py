"""The loop of a score pass over one engine: rows in, scored rows out.

Invariants: a row comes out once, in the order in which rows are finished, behind a rejection where it lacks a
value; the engine has up to twice its batch outstanding, so that no slot waits for this loop; the rows behind
them wait here, not yet tokenized.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from magpie_ray.acceptance import CONTEXT_FULL, NO_TEXT
from magpie_ray.engine.scoring import ScoreRequest, ScoringEngine
from magpie_ray.scoring.columns import Column, Inquiry, Values
from magpie_ray.scoring.rows import RowToScore, texts_of
from magpie_ray.types import Rejection, ScoredRow

# Requests outstanding, in batches of the engine: one that runs, and one that follows without a pause.
_BATCHES = 2


@dataclass(slots=True)
class _OpenRow:
    row: RowToScore
    values: Values
    inquiries: list[tuple[Column, Sequence[Inquiry]]] = field(default_factory=list)
    outstanding: int = 0
    requests: int = 0


class Scorer:
    """Scores rows on one engine. ConfigError where the engine's model does not serve a column.

    window: requests that may be outstanding.
    """

    def __init__(self, engine: ScoringEngine, columns: Sequence[Column]) -> None:
        for column in columns:
            column.check(engine.vector_size)
        self._engine, self._columns = engine, columns
        self._waiting = deque[RowToScore]()
        self._open = dict[int, tuple[_OpenRow, Inquiry]]()  # by request_id
        self._outcomes: list[ScoredRow | Rejection] = []
        self._requests = 0
        self.window = _BATCHES * engine.figures.max_num_seqs

    @property
    def busy(self) -> bool:
        """Whether rows are still to come out."""
        return bool(self._waiting or self._open or self._outcomes)

    @property
    def unstarted(self) -> int:
        """Rows that wait for room in the engine."""
        return len(self._waiting)

    def add(self, rows: Iterable[RowToScore]) -> None:
        """Rows to score behind those that are here."""
        self._waiting.extend(rows)

    def discard(self, rows: range) -> None:
        """Forget rows that were added: none of them comes out from now on."""
        self._waiting = deque(row for row in self._waiting if row.row_id not in rows)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.row_id not in rows]
        dropped = [number for number, (opened, _) in self._open.items() if opened.row.row_id in rows]
        self._engine.abort(dropped)
        for number in dropped:
            del self._open[number]

    def step(self) -> list[ScoredRow | Rejection]:
        """Fill the engine's batch, advance it by a step, and return the outcomes since."""
        while self._waiting and len(self._open) < self.window:
            self._start(self._waiting.popleft())
        if self._open:
            for score in self._engine.step():
                row, inquiry = self._open.pop(score.request_id)
                row.outstanding -= 1
                inquiry.answer(score.numbers)
                self._ask(row, inquiry)
                if not row.outstanding:
                    self._finish(row)
        return self.take_outcomes()

    def take_outcomes(self) -> list[ScoredRow | Rejection]:
        """Outcomes since the last call. After an error, those that the failed step would have returned."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _start(self, row: RowToScore) -> None:
        opened, texts, reason = _OpenRow(row, {}), texts_of(row), ""
        for column in self._columns:
            inquiries = column.inquiries(row, texts)
            fits = all(column.longest(inquiry) <= self._engine.longest_prompt for inquiry in inquiries)
            if inquiries and fits:
                opened.inquiries.append((column, inquiries))
                continue
            reason = reason or (CONTEXT_FULL if inquiries else NO_TEXT)
            opened.values |= dict.fromkeys(column.names)
        if reason:
            self._outcomes.append(_rejection(row, reason, text=texts.get("instruction", "")))
        for _, inquiries in opened.inquiries:
            for inquiry in inquiries:
                self._ask(opened, inquiry)
        if not opened.outstanding:
            self._finish(opened)

    def _ask(self, row: _OpenRow, inquiry: Inquiry) -> None:
        """Submit what the inquiry asks next, if anything."""
        if (request := inquiry.request()) is None:
            return
        prompt, asked = request
        self._requests += 1
        self._engine.submit(ScoreRequest(request_id=self._requests, prompt_token_ids=prompt, asked=asked))
        self._open[self._requests] = row, inquiry
        row.outstanding += 1
        row.requests += 1

    def _finish(self, opened: _OpenRow) -> None:
        for column, inquiries in opened.inquiries:
            opened.values |= column.values(inquiries)
        names = [name for column in self._columns for name in column.names]
        values = {name: opened.values[name] for name in names}
        self._outcomes.append(
            ScoredRow(row_id=opened.row.row_id, values=values, tokens=opened.requests, kept=opened.row.kept)
        )


def _rejection(row: RowToScore, reason: str, *, text: str) -> Rejection:
    """A row that lacks a value. text: stands for the row among the examples of the reason."""
    return Rejection(
        row_id=row.row_id,
        attempt=1,
        role="assistant",
        turn=1,
        reason=reason,
        text=text,
        user_tokens=0,
        assistant_tokens=0,
    )
