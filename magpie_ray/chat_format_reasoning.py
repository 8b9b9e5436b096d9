"""How the reasoning of an answer is told from its content: plain data, and the split.

Owns: what stands between the two in what a model generates. What always holds: what was split off has no part
in the content; reasoning that never closes is no answer.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Answer(NamedTuple):
    """A generated answer in its two parts; `reasoning` is "" where the model gave none."""

    reasoning: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reasoning:
    """The markup of answers with reasoning, without surrounding white space.

    opened: what asks for an answer opens the reasoning, so the model writes no `opening`. answer_opening and
    answer_closing: what some formats write around the content itself, "" for nothing. kept: the template
    writes the reasoning of earlier answers as well, so they stay as they were generated.
    """

    opened: bool
    opening: str
    closing: str
    answer_opening: str = ""
    answer_closing: str = ""
    kept: bool = False

    def split(self, text: str) -> Answer | None:
        """A decoded answer, special tokens kept, in its parts. None: its reasoning never closes."""
        before, closed, content = text.partition(self.closing)
        if closed:
            reasoning = before.strip().removeprefix(self.opening).strip()
        elif self.opened or text.lstrip().startswith(self.opening):
            return None
        else:
            reasoning, content = "", text
        content = content.strip().removeprefix(self.answer_opening)
        if self.answer_closing:
            content = content.partition(self.answer_closing)[0]
        return Answer(reasoning, content.strip())
