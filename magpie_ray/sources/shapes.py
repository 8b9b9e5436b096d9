"""Which columns of a source hold a row's messages.

Invariants: the shape follows from names and types of columns alone, never from the content of rows. Of
several columns that would do, the first of PREFERRED is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from magpie_ray.errors import SourceError

MessagesColumn = Literal["conversation", "messages", "conversations", "instruction"]

# Lists of messages: of magpie_ray, OpenAI, ShareGPT. Then columns of single messages.
_LISTS: tuple[MessagesColumn, ...] = ("conversation", "messages", "conversations")
PREFERRED: tuple[MessagesColumn, ...] = (*_LISTS, "instruction")
# Alpaca's input belongs to the instruction; the first of the others that a row has is its answer.
INPUT, ANSWERS = "input", ("response", "output")
SYSTEM_PROMPT, RESPONSES = "system_prompt", "responses"
# The names of a message's fields: role and content.
FIELDS = (("role", "content"), ("from", "value"))

_ARE = (
    "a source has the column conversation, messages or conversations (a list of messages with role and "
    "content, or from and value; or the same as JSON in text), or instruction (text)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """How a row's messages stand.

    column: where its messages are; `instruction` may have `input`, `response` and `output` beside it.
    responses: whether rows have several answers, in the column `responses`. one_turn: whether every row has
    one user message, by the names of its columns.
    """

    column: MessagesColumn
    responses: bool = False
    one_turn: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of a row, where it is there."""
        beside = (INPUT, *ANSWERS) if self.column == "instruction" else ()
        return (self.column, *beside, SYSTEM_PROMPT, *([RESPONSES] if self.responses else []))

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of the columns that hold text."""
        return tuple(name for name in self.columns if name not in (*_LISTS, RESPONSES))


def shape_of_schema(schema: pa.Schema, *, where: str, is_build: bool = False) -> Shape:
    """The shape of a Parquet file. where: the beginning of a message. SourceError when there is none."""
    names = schema.names
    shape = _shape(
        {name: schema.field(name).type for name in dict.fromkeys(names) if names.count(name) == 1},
        fits=type_problem,
        has_responses=_is_list_of_texts,
        where=where,
        is_build=is_build,
    )
    for name in shape.texts:
        if name in names and (problem := type_problem(name, schema.field(name).type)):
            raise SourceError(f"{where}: the column {name} {problem}")
    return shape


def shape_of_record(record: Mapping[str, object], *, where: str) -> Shape:
    """The shape of JSON lines, by their first row. SourceError when there is none."""
    return _shape(
        {name: value for name, value in record.items() if value is not None},
        fits=_value_problem,
        has_responses=is_list_of_texts,
        where=where,
        is_build=False,
    )


def _shape(columns: Mapping[str, Any], *, fits: Any, has_responses: Any, where: str, is_build: bool) -> Shape:
    problems = list[str]()
    for column in PREFERRED:
        if column not in columns:
            continue
        if problem := fits(column, columns[column]):
            problems.append(f"{column} {problem}")
            continue
        is_single = column == "instruction" or (is_build and "instruction" in columns)
        responses = RESPONSES in columns and bool(has_responses(columns[RESPONSES]))
        return Shape(column=column, responses=responses, one_turn=is_single)
    reason = "; ".join(problems) or f"the columns are {', '.join(columns) or 'none'}"
    raise SourceError(f"{where} has no messages that can be read: {reason}. Rename a column: {_ARE}")


def type_problem(column: str, kind: pa.DataType) -> str | None:
    """What is wrong with the type of a column of messages or text, as the end of a sentence."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if is_text(kind):
        return None
    if column not in _LISTS:
        return None if pa.types.is_null(kind) else f"is {kind}, must be text"
    if is_list(kind) and pa.types.is_struct(kind.value_type) and fields_of(kind.value_type):
        return None
    return f"is {kind}, must be a list of structs with role and content, or from and value, or JSON in text"


def fields_of(kind: pa.DataType) -> tuple[str, str] | None:
    """The names of role and content among the fields of a struct."""
    names = {field.name for field in kind.fields}
    return next((pair for pair in FIELDS if names >= set(pair)), None)


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's lists that hold offsets."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def is_list_of_texts(value: object) -> bool:
    """Whether a value of JSON is a list of texts and nulls."""
    return isinstance(value, list) and all(one is None or isinstance(one, str) for one in value)


def _is_list_of_texts(kind: pa.DataType) -> bool:
    return is_list(kind) and is_text(kind.value_type)


def _value_problem(column: str, value: object) -> str | None:
    if isinstance(value, str) or (column in _LISTS and isinstance(value, list)):
        return None
    must = "a list of messages, or JSON in text" if column in _LISTS else "text"
    return f"is {type(value).__name__}, must be {must}"


def check_kept(keep: Sequence[str], there: Iterable[str], *, section: str, where: str) -> None:
    """SourceError for a name that is to be kept and is no column."""
    there = list(there)
    for name in keep:
        if name not in there:
            known = ", ".join(there) or "none"
            raise SourceError(
                f"{section}.keep: got {name}, but {where} has no such column; there are {known}"
            )
        if there.count(name) > 1:
            raise SourceError(f"{section}.keep: got {name}, but {where} has that column twice: rename one")
