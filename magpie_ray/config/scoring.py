"""The section `columns` of a score pass: what a model is asked about each row.

Owns: the kinds of columns, and which texts of a row their prompts name. Invariants: all columns of a config
are of one kind, because one engine serves one kind; no column takes a name that rows have already.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    PlainValidator,
    Tag,
    ValidationInfo,
)

from magpie_ray.config import fields
from magpie_ray.config.fields import Section, is_text, must_be_text
from magpie_ray.config.problems import NO_KEY, BadValueError, Problem, bad_value

ScoreKind = Literal["choice", "reward", "embed"]
KINDS: tuple[ScoreKind, ...] = ("choice", "reward", "embed")
# Which part of a row: its first instruction, its last answer, or all its messages.
RowText = Literal["instruction", "response", "conversation"]
ROW_TEXTS: tuple[RowText, ...] = ("instruction", "response", "conversation")

# Stands in a prompt for the labels, one a line, with their descriptions.
LABELS = "labels"
PLACEHOLDER = re.compile(r"\{([A-Za-z_]+)\}")
PROBABILITY_SUFFIX = "_probability"

# More than these no model tells apart, and each is asked about.
_MOST_LABELS = 100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The columns that rows of builds and passes have: dataset/columns.py.
ROW_COLUMNS = frozenset(
    {
        *("row_id", "source_row_id", "input_id", "conversation", "messages", "instruction", "response"),
        *("responses", "reasoning", "system_prompt", "system_prompt_key", "sampling_key", "model_name"),
        *("finish_reasons", "prompt_tokens", "completion_tokens", "attempt"),
    }
)

_SHAPE = "a list of labels, such as [easy, hard], or a mapping of labels to what they mean"


def _labels(value: object) -> dict[str, str | None]:
    """Label -> what it means, or None."""
    if not isinstance(value, list | dict):
        raise bad_value(value, _SHAPE)
    if problems := list(_label_problems(value)):
        raise BadValueError(*problems)
    return dict(value) if isinstance(value, dict) else dict.fromkeys(value)


def _label_problems(value: list[object] | dict[object, object]) -> Iterator[Problem]:
    if not 2 <= len(value) <= _MOST_LABELS:
        yield Problem(value=value, must=f"must have 2 to {_MOST_LABELS} labels")
    seen = set[str]()
    for index, label in enumerate(value):
        at = (str(index),) if isinstance(value, list) else (str(label),)
        if not isinstance(label, str) or not is_text(label) or label != " ".join(label.split()):
            must = "must be a label of one line without blanks around it, in quotes where YAML reads it as"
            yield Problem(at=at, value=label, must=f"{must} something else")
        elif label.lower() in seen:
            yield Problem(at=at, value=label, must="must be there once, whatever its capital letters")
        else:
            seen.add(label.lower())
    for label, meaning in value.items() if isinstance(value, dict) else ():
        if meaning is not None and not is_text(meaning):
            yield Problem(at=(str(label),), value=meaning, must="must be text that says what the label means")


def _prompt(value: str, info: ValidationInfo) -> str:
    known = (*ROW_TEXTS, LABELS)
    named = PLACEHOLDER.findall(value)
    shown = ", ".join(f"{{{name}}}" for name in known)
    for name in named:
        if name not in known:
            raise bad_value(f"{{{name}}}", f"one of the placeholders {shown}")
    if not set(named) & set(ROW_TEXTS):
        raise bad_value(
            value, "a text with a placeholder for the row: {instruction}, {response} or {conversation}"
        )
    labels = info.data.get("choice")
    if labels and any(labels.values()) and LABELS not in named:
        raise bad_value(value, "a text with {labels}, where the meanings of the labels stand")
    return value


class ChoiceColumn(Section):
    """A label for each row, by a chat model that can write nothing else."""

    choice: Annotated[dict[str, str | None], PlainValidator(_labels)]
    prompt: Annotated[str, must_be_text("the text that asks for a label"), AfterValidator(_prompt)]

    @property
    def texts(self) -> tuple[RowText, ...]:
        """The texts of a row that the prompt names."""
        named = PLACEHOLDER.findall(self.prompt)
        return tuple(text for text in ROW_TEXTS if text in named)


class RewardColumn(Section):
    """The logit of a reward model for the row's dialogue, or for each of its responses."""

    reward: Literal["response"]
    system_prompt: bool = False

    @property
    def texts(self) -> tuple[RowText, ...]:
        return ("response",)


class EmbedColumn(Section):
    """A vector of length one for a text of each row. dimensions: its first so many numbers."""

    embed: RowText
    dimensions: fields.OptionalCount = None

    @property
    def texts(self) -> tuple[RowText, ...]:
        return (self.embed,)


ScoreColumn: TypeAlias = ChoiceColumn | RewardColumn | EmbedColumn


def kind_of(column: object) -> ScoreKind | None:
    """The kind of a column, of a section or as it is written; None where it names none or several."""
    named = column if isinstance(column, Mapping) else getattr(type(column), "model_fields", ())
    kinds = [kind for kind in KINDS if kind in named]
    return kinds[0] if len(kinds) == 1 else None


def _has_a_kind(value: object) -> object:
    if not isinstance(value, Section) and kind_of(value) is None:
        raise bad_value(value, f"a mapping with one of the keys {', '.join(KINDS)}")
    return value


def _tag(value: Any) -> str:
    return f"{NO_KEY}{kind_of(value)}"


_Column = Annotated[
    Annotated[ChoiceColumn, Tag(f"{NO_KEY}choice")]
    | Annotated[RewardColumn, Tag(f"{NO_KEY}reward")]
    | Annotated[EmbedColumn, Tag(f"{NO_KEY}embed")],
    Discriminator(_tag),
    BeforeValidator(_has_a_kind),
]


def names_of(name: str, kind: ScoreKind | None) -> tuple[str, ...]:
    """The columns of the rows that a column of the config becomes."""
    return (name, name + PROBABILITY_SUFFIX) if kind == "choice" else (name,)


def _shape(value: object) -> object:
    """What can be said of `columns` before its columns are looked at."""
    if not isinstance(value, dict) or not value:
        raise bad_value(
            value, "a mapping of names to columns, such as {difficulty: {choice: [...], prompt: ...}}"
        )
    if problems := list(_name_problems(value)):
        raise BadValueError(*problems)
    return value


def _name_problems(value: dict[object, object]) -> Iterator[Problem]:
    first_name, first_kind = next(
        ((name, kind) for name, column in value.items() if (kind := kind_of(column))), ("", None)
    )
    taken: dict[str, str] = dict.fromkeys(ROW_COLUMNS, "a column of the rows")
    for name, column in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            must = "must be a name of letters, digits and underscores, which does not begin with a digit"
            yield Problem(value=name, must=must)
            continue
        kind = kind_of(column)
        # `select` does not tell names apart by case.
        for written in names_of(name, kind):
            if owner := taken.get(written.lower()):
                yield Problem(at=(name,), value=written, must=f"must have another name: {owner} has this one")
        taken |= dict.fromkeys(map(str.lower, names_of(name, kind)), f"the column {name}")
        if kind and kind != first_kind:
            must = (
                f"must be left out beside {first_name}, which is a {first_kind}: each kind needs an engine "
                "of its own, so write another config for it"
            )
            yield Problem(at=(name, kind), value=column[kind], must=must)  # type: ignore[index]


Columns: TypeAlias = Annotated[dict[str, _Column], BeforeValidator(_shape)]


def kind_of_all(columns: Mapping[str, ScoreColumn]) -> ScoreKind:
    """The kind that all columns of a config have."""
    kind = kind_of(next(iter(columns.values())))
    assert kind is not None, "the config is checked"
    return kind
