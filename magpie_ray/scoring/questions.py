"""A row as the text that asks a model for a label.

The order of a prompt's parts decides what the cache saves. Text in front of the row is computed once for all
rows. Text behind it is computed for each row, but then the questions of a config that begin alike share the
row. So the question stands first, unless several questions are asked about rows that are longer than it.
Tokens that SmolLM2 prefills a row, with questions of about 100 tokens, question first and row first: 57 and
146 for one about a short row, 2053 and 1016 for five about a row of 400 (`orders` in
jobs/benchmarks/scoring.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from magpie_ray.config.scoring import LABELS, PLACEHOLDER, ChoiceColumn
from magpie_ray.scoring.rows import Texts


@dataclass(frozen=True, kw_only=True)
class Question:
    """One column's question. labels: label -> what it means, or None."""

    name: str
    prompt: str
    labels: Mapping[str, str | None]

    @classmethod
    def of(cls, name: str, column: ChoiceColumn) -> "Question":
        """The question of a column of the config."""
        return cls(name=name, prompt=column.prompt, labels=column.choice)

    def text(self, texts: Texts) -> str | None:
        """The prompt for a row's texts; None where the row lacks one that it names.

        A row's text stays as it is: what looks like a placeholder in it is text.
        """
        values: dict[str, str] = {**dict(texts.items()), LABELS: self._listed}
        if not self._named <= values.keys():
            return None
        return PLACEHOLDER.sub(lambda found: values[found[1]], self.prompt).strip()

    # The same for all rows.
    @cached_property
    def _named(self) -> frozenset[str]:
        """The placeholders in the prompt."""
        return frozenset(PLACEHOLDER.findall(self.prompt))

    @cached_property
    def _listed(self) -> str:
        """The labels one a line, with what they mean."""
        return "\n".join(
            f"- {label}: {_one_line(meaning)}" if meaning else f"- {label}"
            for label, meaning in self.labels.items()
        )


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
