"""The columns of a score pass: what a column asks about a row, and the values that come of the answers.

Invariants: a column has values for a row that has its texts and fits the context, and None for any other.
"""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from magpie_ray.chat_format import ChatFormat, message_ids
from magpie_ray.chat_format.dialogue import Dialogues
from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.config.scoring import (
    PROBABILITY_SUFFIX,
    ChoiceColumn,
    EmbedColumn,
    RewardColumn,
    ScoreColumn,
    kind_of_all,
    names_of,
)
from magpie_ray.errors import ConfigError, EngineError
from magpie_ray.scoring.labels import Search, fork_of
from magpie_ray.scoring.questions import Question
from magpie_ray.scoring.rows import RowToScore, Texts

Values = dict[str, Any]


class Inquiry(Protocol):
    """What is asked about one text, in one request or, for some labels, several."""

    def request(self) -> tuple[list[int], tuple[int, ...]] | None:
        """The next prompt and the tokens asked about; None once all is known."""

    def answer(self, numbers: Sequence[float]) -> None:
        """Take the numbers for `request`. EngineError where they are none."""


class Column(Protocol):
    """One column of the config.

    names: the columns of the rows that it becomes.
    """

    names: tuple[str, ...]

    def inquiries(self, row: RowToScore, texts: Texts) -> Sequence[Inquiry]:
        """What to ask about a row; nothing where it lacks a text."""

    def longest(self, inquiry: Any) -> int:
        """Tokens of the longest prompt that the inquiry may need."""

    def values(self, inquiries: Sequence[Any]) -> Values:
        """The values by name, once the inquiries of a row are answered."""

    def check(self, vector_size: int | None) -> None:
        """ConfigError where an engine with such vectors does not serve the column."""


class LabelInquiry:
    """The search for the label of one prompt."""

    def __init__(self, prompt: list[int], search: Search) -> None:
        self.prompt, self.search = prompt, search

    def request(self) -> tuple[list[int], tuple[int, ...]] | None:
        fork = self.search.fork
        return None if fork is None else ([*self.prompt, *fork.so_far], fork.asked)

    def answer(self, numbers: Sequence[float]) -> None:
        self.search.answer(numbers)


class VectorInquiry:
    """The vector of one prompt. prompt: [] for none, which has no vector."""

    def __init__(self, prompt: list[int]) -> None:
        self.prompt = prompt
        self.vector: Any = None  # float32

    def request(self) -> tuple[list[int], tuple[int, ...]] | None:
        return (self.prompt, ()) if self.prompt and self.vector is None else None

    def answer(self, numbers: Sequence[float]) -> None:
        self.vector = np.asarray(numbers, dtype=np.float32)
        if not np.isfinite(self.vector).all():
            raise EngineError(
                "the model gives numbers that are none (NaN or infinite): its weights or dtype are wrong"
            )


class Choice:
    """A label and its probability, by a chat model.

    The label is the one that the model, which can write nothing else, most probably writes.
    """

    def __init__(self, name: str, column: ChoiceColumn, *, encoder: Encoder, form: ChatFormat) -> None:
        form.require(turns=1, answers=True)
        self.names = names_of(name, "choice")
        self._name, self._question = name, Question.of(name, column)
        self._encoder, self._form, self._start = encoder, form, form.start(None)
        label_ids = {label: self._ids(label, index=1) for label in column.choice}
        ends = form.assistant_stop_token_ids
        self._fork = fork_of(label_ids, ends=ends, where=f"columns.{name}.choice")
        self._beyond = max(len(fork.so_far) for fork in self._fork.forks())

    def inquiries(self, row: RowToScore, texts: Texts) -> Sequence[LabelInquiry]:
        text = self._question.text(texts)
        if text is None:
            return ()
        prompt = self._form.prompt(self._start, [self._ids(text, index=0)])
        return [LabelInquiry(prompt, Search(self._fork))]

    def longest(self, inquiry: LabelInquiry) -> int:
        return len(inquiry.prompt) + self._beyond

    def values(self, inquiries: Sequence[LabelInquiry]) -> Values:
        search = inquiries[0].search
        return {self._name: search.label, self._name + PROBABILITY_SUFFIX: search.probability}

    def check(self, vector_size: int | None) -> None:
        assert vector_size is None, "the engine is started for the kind"

    def _ids(self, text: str, *, index: int) -> list[int]:
        return message_ids(self._encoder, self._form, text, index=index, prefix=self._start)


class Reward:
    """The logit of a reward model for the dialogue.

    several: rows have `responses`; then a list of logits, one for the dialogue with each of them.
    """

    def __init__(self, name: str, column: RewardColumn, *, dialogues: Dialogues, several: bool) -> None:
        self.names = names_of(name, "reward")
        self._name, self._dialogues, self._several = name, dialogues, several
        self._with_system = column.system_prompt

    def inquiries(self, row: RowToScore, texts: Texts) -> Sequence[VectorInquiry]:
        contents = [text for role, text in row.messages if role in ("user", "assistant")]
        answered: list[list[str]] = [contents] if contents and not len(contents) % 2 else []
        if self._several:
            # An answer that the row lacks has no reward.
            asked = contents if len(contents) % 2 else contents[:-1]
            answered = [[*asked, text] if asked and text is not None else [] for text in row.responses]
        if not any(answered):
            return ()
        system = row.system_prompt if self._with_system else None
        ids = self._dialogues.ids
        return [VectorInquiry(ids(each, system_prompt=system) if each else []) for each in answered]

    def longest(self, inquiry: VectorInquiry) -> int:
        return len(inquiry.prompt)

    def values(self, inquiries: Sequence[VectorInquiry]) -> Values:
        logits = [None if inquiry.vector is None else float(inquiry.vector[0]) for inquiry in inquiries]
        return {self._name: logits if self._several else logits[0]}

    def check(self, vector_size: int | None) -> None:
        if vector_size != 1:
            raise ConfigError(
                f"columns.{self._name}.reward: the model has {vector_size} labels, and a reward model has "
                "one; set model.name to a reward model"
            )


class Embedding:
    """A vector of length one, by an embedding model."""

    def __init__(self, name: str, column: EmbedColumn, *, tokenizer: Any) -> None:
        self.names = names_of(name, "embed")
        self._name, self._text, self._dimensions = name, column.embed, column.dimensions
        self._tokenizer = tokenizer

    def inquiries(self, row: RowToScore, texts: Texts) -> Sequence[VectorInquiry]:
        text = texts.get(self._text)
        if text is None:
            return ()
        # With the special tokens that the model reads its texts with.
        return [VectorInquiry(list(self._tokenizer(text, verbose=False)["input_ids"]))]

    def longest(self, inquiry: VectorInquiry) -> int:
        return len(inquiry.prompt)

    def values(self, inquiries: Sequence[VectorInquiry]) -> Values:
        vector = inquiries[0].vector[: self._dimensions].astype(np.float64)
        length = float(np.linalg.norm(vector))
        return {self._name: (vector / (length or 1.0)).astype(np.float32)}

    def check(self, vector_size: int | None) -> None:
        if self._dimensions is not None and vector_size is not None and self._dimensions > vector_size:
            raise ConfigError(
                f"columns.{self._name}.dimensions: got {self._dimensions}, but the vectors of the model have "
                f"{vector_size} numbers; use at most so many"
            )


def make_columns(
    columns: Mapping[str, ScoreColumn],
    *,
    tokenizer: Any,
    form: ChatFormat | None = None,
    several: bool = False,
    date: datetime.date | None = None,
) -> list[Column]:
    """The columns of a config, over the tokenizer of its model.

    form: the model's chat format, for choices. several: rows have `responses`. date: that dated templates of
    reward models write; None for today. ConfigError and FormatError where the model or the rows do not serve
    a column.
    """
    kind = kind_of_all(columns)
    encoder = Encoder(tokenizer) if kind == "choice" else None
    dialogues = Dialogues(tokenizer, date=date) if kind == "reward" else None
    made: list[Column] = []
    for name, column in columns.items():
        if several and "response" in column.texts and not isinstance(column, RewardColumn):
            raise ConfigError(
                f"columns.{name}: names the response of a row, and the rows of this source have several; "
                "name instruction or conversation, or score a source with one response a row"
            )
        if isinstance(column, ChoiceColumn):
            assert form is not None, "the model of a choice has a chat format"
            assert encoder is not None
            made.append(Choice(name, column, encoder=encoder, form=form))
        elif isinstance(column, RewardColumn):
            assert dialogues is not None
            made.append(Reward(name, column, dialogues=dialogues, several=several))
        else:
            made.append(Embedding(name, column, tokenizer=tokenizer))
    return made
