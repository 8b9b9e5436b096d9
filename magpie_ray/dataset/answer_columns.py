"""The columns of the rows that the pass `answer` makes.

With one answer a row they are those of `generate`, of the messages behind the given ones. With several, the
columns of the generated messages have one entry an answer. Invariants: they follow from the config and the
shape of the source; an answer that a row lacks is null.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.dataset.columns import COLUMNS, NO_COLUMNS, Column, table_of
from magpie_ray.types import Message, Row


def _answer(row: Row) -> Message | None:
    """The first generated message of a row with one answer; None where it is unanswered."""
    return row.generated[0] if row.generated else None


def _text(row: Row) -> str | None:
    answer = _answer(row)
    return answer.text if answer else None


def _of_each_message(value: Callable[[Message], object]) -> Callable[[Row, Any], object]:
    return lambda row, config: [value(message) for message in row.generated]


def _of_each_answer(value: Callable[[Message], object]) -> Callable[[Row, Any], object]:
    def cells(row: Row, config: Any) -> list[object]:
        return [value(answer) if (answer := _answer(one)) else None for one in row.each]

    return cells


_ONE = (
    COLUMNS["row_id"],
    replace(
        COLUMNS["conversation"],
        meaning="the messages of the source up to the user's last one, then the generated ones",
    ),
    replace(
        COLUMNS["instruction"],
        meaning="the user's message that is answered",
        value=lambda row, config: row.messages[row.given - 1].text,
    ),
    replace(
        COLUMNS["response"],
        meaning="the answer; null where no attempt was accepted",
        value=lambda row, config: _text(row),
        nullable=True,
    ),
    replace(
        COLUMNS["reasoning"],
        value=lambda row, config: [m.reasoning for m in row.generated if m.role == "assistant"],
    ),
    replace(
        COLUMNS["system_prompt"], meaning="the system prompt that the row was answered under; null for none"
    ),
    COLUMNS["sampling_key"],
    replace(COLUMNS["model_name"], meaning="the model that answered"),
    replace(COLUMNS["finish_reasons"], value=_of_each_message(lambda m: m.finish_reason)),
    replace(COLUMNS["prompt_tokens"], value=_of_each_message(lambda m: m.prompt_tokens)),
    replace(COLUMNS["completion_tokens"], value=_of_each_message(lambda m: m.completion_tokens)),
    COLUMNS["attempt"],
)
_SEVERAL = (
    COLUMNS["row_id"],
    replace(
        COLUMNS["conversation"],
        meaning="the messages of the source up to the user's last one, which is answered",
    ),
    _ONE[2],
    Column(
        "responses",
        pa.list_(pa.string()),
        "the answers; null in the place of one of which no attempt was accepted",
        _of_each_answer(lambda m: m.text),
    ),
    Column(
        "reasoning",
        pa.list_(pa.string()),
        "the reasoning before each answer",
        _of_each_answer(lambda m: m.reasoning),
    ),
    *_ONE[5:8],
    Column(
        "finish_reasons",
        pa.list_(pa.string()),
        "how each answer ended: `stop`, or `length` where it was cut off",
        _of_each_answer(lambda m: m.finish_reason),
    ),
    Column(
        "prompt_tokens",
        pa.list_(pa.int32()),
        "the tokens before each answer",
        _of_each_answer(lambda m: m.prompt_tokens),
    ),
    Column(
        "completion_tokens",
        pa.list_(pa.int32()),
        "the tokens of each answer, with the token that ends it",
        _of_each_answer(lambda m: m.completion_tokens),
    ),
    Column(
        "attempt",
        pa.list_(pa.int32()),
        "which attempt at each answer was accepted, from 1, or was the last",
        lambda row, config: [one.attempt for one in row.each],
    ),
)


def answer_columns_by_name(answers: int) -> dict[str, Column]:
    """All columns that a pass with so many answers a row may have."""
    return {column.name: column for column in (_ONE if answers == 1 else _SEVERAL)}


def answer_columns(config: AnswerConfig, *, one_turn: bool) -> tuple[Column, ...]:
    """The columns of the pass, in order, without those kept of the source.

    one_turn: each row of the source is one instruction.
    """
    columns = answer_columns_by_name(config.n).values()
    left_out = set[str]()
    if not one_turn or config.more_turns:
        left_out |= {"instruction", "response"}
    if not config.model.thinking:
        left_out.add("reasoning")
    if not config.sampling.is_mixed:
        left_out.add("sampling_key")
    return tuple(column for column in columns if column.name not in left_out)


def answer_schema(config: AnswerConfig, *, one_turn: bool, kept: pa.Schema = NO_COLUMNS) -> pa.Schema:
    """The Arrow schema of the pass. kept: of the columns that it keeps of the source."""
    columns = answer_columns(config, one_turn=one_turn)
    own = [pa.field(column.name, column.type, nullable=column.nullable) for column in columns]
    return pa.schema([*own, *(kept.field(name).with_metadata(None) for name in config.source.keep)])


def answer_table(
    rows: Sequence[Row], config: AnswerConfig, *, one_turn: bool, kept: pa.Schema = NO_COLUMNS
) -> pa.Table:
    """Rows in the columns of the pass; each row has the kept cells in its input."""
    schema = answer_schema(config, one_turn=one_turn, kept=kept)
    columns = {column.name: column for column in answer_columns(config, one_turn=one_turn)}
    return table_of(rows, config, schema, columns, kept)
