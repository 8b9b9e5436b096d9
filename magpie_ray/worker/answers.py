"""Rows of a build and rows of its recipe, which are as many times more as a row has answers.

Engine and rounds know rows of the recipe alone: each is one answer, with a number of its own. Files have rows
of the build.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from magpie_ray.types import Rejection, Row


class Answers:
    """Puts the answers to each row together. each: how many a row has; 1 where rows are not answered."""

    def __init__(self, each: int) -> None:
        self.each = each
        self._got: dict[int, dict[int, Row]] = {}  # by row of the build, by number among its answers

    def of(self, rows: range) -> range:
        """The rows of the recipe that are these rows' answers."""
        return range(rows.start * self.each, rows.stop * self.each)

    def drop(self, rows: range) -> None:
        """Forget what there is of these rows."""
        for row_id in [row_id for row_id in self._got if row_id in rows]:
            del self._got[row_id]

    def together(self, outcomes: Iterable[Row | Rejection]) -> Iterator[Row | Rejection]:
        """Outcomes of the recipe as outcomes of the build; a row comes with the last of its answers."""
        for outcome in outcomes:
            if self.each == 1:
                yield outcome
                continue
            row_id, number = divmod(outcome.row_id, self.each)
            if isinstance(outcome, Rejection):
                yield replace(outcome, row_id=row_id)
                continue
            got = self._got.setdefault(row_id, {})
            got[number] = outcome
            if len(got) == self.each:
                del self._got[row_id]
                answers = tuple(got[number] for number in range(self.each))
                given = outcome.messages[: outcome.given]
                yield replace(outcome, row_id=row_id, messages=given, answers=answers)
