"""The loop of a score pass over one engine: rows in, scored rows out.

Invariants: a row comes out once, in the order in which rows are finished; the engine has up to twice its
batch outstanding, so that no slot waits for this loop; the rows behind them wait here, not yet tokenized.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from magpie_ray.engine.scoring import ScoreRequest, ScoringEngine
from magpie_ray.scoring.columns import Column, Inquiry, Values
from magpie_ray.scoring.rows import RowToScore, texts_of

# Requests outstanding, in batches of the engine: one that runs, and one that follows without a pause.
_BATCHES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """The values of a row by the names of its columns. None: the row lacks the text, or does not fit.

    A label is a str and its probability a float. A reward is a float, or a list of them, one for each
    response of the row. An embedding is an array of float32.
    """

    row_id: int
    values: Mapping[str, object]


@dataclass(slots=True)
class _OpenRow:
    row_id: int
    values: Values
    inquiries: list[tuple[Column, Sequence[Inquiry]]] = field(default_factory=list)
    outstanding: int = 0


class Scorer:
    """Scores rows on one engine. ConfigError where the engine's model does not serve a column.

    too_long, without_text: rows with nulls, by the names of their columns.
    """

    def __init__(self, engine: ScoringEngine, columns: Sequence[Column]) -> None:
        for column in columns:
            column.check(engine.vector_size)
        self._engine, self._columns = engine, columns
        self._waiting = deque[RowToScore]()
        self._open = dict[int, tuple[_OpenRow, Inquiry]]()  # by request_id
        self._done: list[ScoredRow] = []
        self._requests = 0
        self._window = _BATCHES * engine.figures.max_num_seqs
        self.too_long, self.without_text = Counter[str](), Counter[str]()

    @property
    def busy(self) -> bool:
        """Whether rows are still to come out."""
        return bool(self._waiting or self._open or self._done)

    @property
    def unstarted(self) -> int:
        """Rows that wait for room in the engine."""
        return len(self._waiting)

    def add(self, rows: Iterable[RowToScore]) -> None:
        """Rows to score behind those that are here."""
        self._waiting.extend(rows)

    def step(self) -> list[ScoredRow]:
        """Fill the engine's batch, advance it by a step, and return the rows that are finished."""
        while self._waiting and len(self._open) < self._window:
            self._start(self._waiting.popleft())
        if self._open:
            for score in self._engine.step():
                row, inquiry = self._open.pop(score.request_id)
                row.outstanding -= 1
                inquiry.answer(score.numbers)
                self._ask(row, inquiry)
                if not row.outstanding:
                    self._finish(row)
        done, self._done = self._done, []
        return done

    def drop(self) -> None:
        """Forget all rows, and the requests that the engine has of them."""
        self._engine.abort(list(self._open))
        self._open.clear()
        self._waiting.clear()
        self._done.clear()

    def _start(self, row: RowToScore) -> None:
        opened, texts = _OpenRow(row.row_id, {}), texts_of(row)
        for column in self._columns:
            inquiries = column.inquiries(row, texts)
            fits = all(column.longest(inquiry) <= self._engine.longest_prompt for inquiry in inquiries)
            if inquiries and fits:
                opened.inquiries.append((column, inquiries))
                continue
            (self.too_long if inquiries else self.without_text)[column.names[0]] += 1
            opened.values |= dict.fromkeys(column.names)
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

    def _finish(self, row: _OpenRow) -> None:
        for column, inquiries in row.inquiries:
            row.values |= column.values(inquiries)
        names = [name for column in self._columns for name in column.names]
        self._done.append(ScoredRow(row_id=row.row_id, values={name: row.values[name] for name in names}))
