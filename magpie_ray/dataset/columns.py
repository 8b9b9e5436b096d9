"""The columns of the rows that `generate` makes: which of them a build has, their types, values and meanings.

Invariants: the columns of a build follow from its config alone, never from its data, and stand in the order
of COLUMNS. Those of passes are in modules of their own. The dataset card, README.md and docs/data.md have the
texts of COLUMNS.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from magpie_ray.config.schema import Config
from magpie_ray.types import Row


@dataclass(frozen=True, slots=True)
class Column:
    """One column. meaning: of its values, in words. value: of a row and its job's config, as Arrow takes it.

    is_written: whether a build with this config has the column; when: the same in words. nullable: whether a
    row may have no value.
    """

    name: str
    type: pa.DataType
    meaning: str
    value: Callable[[Row, Any], object]
    when: str = "always"
    is_written: Callable[[Any], bool] = lambda config: True
    nullable: bool = False


def conversation_of(row: Row, config: Any) -> list[dict[str, str]]:
    """The messages of a row, after its system prompt where the config includes it."""
    prompt = row.system_prompt if config.include_system_prompt else None
    system = [{"role": "system", "content": prompt.text}] if prompt else []
    return system + [{"role": message.role, "content": message.text} for message in row.messages]


_COLUMNS = (
    Column(
        "row_id",
        pa.int64(),
        "0, 1, 2, ...: the same for a row whatever machines made it",
        lambda row, config: row.row_id,
    ),
    Column(
        "conversation",
        pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "the messages in order, after the system prompt where `include_system_prompt` is true",
        conversation_of,
        when="unless `only_instruction` is true",
        is_written=lambda config: not config.only_instruction,
    ),
    Column(
        "instruction",
        pa.string(),
        "the user's message",
        lambda row, config: row.messages[0].text,
        when="rows have one turn",
        is_written=lambda config: config.turns == 1,
    ),
    Column(
        "response",
        pa.string(),
        "the assistant's message",
        lambda row, config: row.messages[1].text,
        when="rows have one turn, which ends with the assistant",
        is_written=lambda config: config.turns == 1 and config.messages_per_row == 2,
    ),
    Column(
        "reasoning",
        pa.list_(pa.string()),
        "the reasoning before each of the assistant's messages",
        lambda row, config: [message.reasoning for message in row.messages if message.role == "assistant"],
        when="`model.thinking` is true",
        is_written=lambda config: config.model.thinking,
    ),
    Column(
        "system_prompt",
        pa.string(),
        "the system prompt that the row was generated under; null for none",
        lambda row, config: row.system_prompt.text if row.system_prompt else None,
        nullable=True,
    ),
    Column(
        "system_prompt_key",
        pa.string(),
        "the name of that prompt in the config",
        lambda row, config: row.system_prompt.key if row.system_prompt else None,
        when="`system_prompt` has names for its prompts",
        is_written=lambda config: config.has_prompt_keys,
        nullable=True,
    ),
    Column(
        "input_id",
        pa.int64(),
        "the number of the row's input, from 0 in the order of files and rows",
        lambda row, config: row.input.input_id if row.input else None,
        when="`inputs.path` is given",
        is_written=lambda config: config.has_inputs,
    ),
    Column(
        "sampling_key",
        pa.int32(),
        "the number of the row's sampling settings, from 0: with n settings for answers, n times the place "
        "of the user's settings in their list, plus the place of the answer's",
        lambda row, config: row.sampling_key,
        when="`sampling.user` or `sampling.assistant` is a list",
        is_written=lambda config: config.sampling.is_mixed,
    ),
    Column("model_name", pa.string(), "the model", lambda row, config: config.model.name),
    Column(
        "finish_reasons",
        pa.list_(pa.string()),
        "how each generated message ended: `stop`, or `length` where it was cut off",
        lambda row, config: [message.finish_reason for message in row.messages],
    ),
    Column(
        "prompt_tokens",
        pa.list_(pa.int32()),
        "the tokens before each generated message",
        lambda row, config: [message.prompt_tokens for message in row.messages],
    ),
    Column(
        "completion_tokens",
        pa.list_(pa.int32()),
        "the tokens of each generated message, with the token that ends it",
        lambda row, config: [message.completion_tokens for message in row.messages],
    ),
    Column(
        "attempt",
        pa.int32(),
        "which attempt at the row was accepted, from 1",
        lambda row, config: row.attempt,
    ),
)
COLUMNS = {column.name: column for column in _COLUMNS}


NO_COLUMNS = pa.schema([])


def columns_of(config: Config) -> tuple[str, ...]:
    """The names of a build's columns, in order; those that rows keep of their inputs come last."""
    return tuple(column.name for column in _COLUMNS if column.is_written(config)) + tuple(config.inputs.keep)


def schema_of(names: Iterable[str], kept: pa.Schema = NO_COLUMNS) -> pa.Schema:
    """The Arrow schema of these columns. kept: the types of those that rows keep of their inputs."""
    return pa.schema(
        [
            kept.field(name).with_metadata(None)
            if name in kept.names
            else pa.field(name, COLUMNS[name].type, nullable=COLUMNS[name].nullable)
            for name in names
        ]
    )


def to_table(rows: Sequence[Row], config: Config, kept: pa.Schema = NO_COLUMNS) -> pa.Table:
    """Rows in the columns of a build. kept: as for `schema_of`; each row has these cells in its input."""
    schema = schema_of(columns_of(config), kept)
    return table_of(rows, config, schema, COLUMNS, kept)


def table_of(
    rows: Sequence[Row],
    config: Any,
    schema: pa.Schema,
    columns_by_name: Mapping[str, Column],
    kept: pa.Schema,
) -> pa.Table:
    """Rows in the columns of a schema: kept ones, and those that the columns give the values of."""
    cells = [row.input.kept for row in rows if row.input] if kept.names else []
    columns = dict(zip(kept.names, pa.concat_batches(cells).columns, strict=True)) if cells else {}
    arrays = [
        columns[field.name]
        if field.name in columns
        else pa.array([columns_by_name[field.name].value(row, config) for row in rows], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
