"""Which columns hold the messages, by their names and types."""

from typing import Any

import pyarrow as pa
import pytest

from magpie_ray.errors import SourceError
from magpie_ray.sources.shapes import shape_of_record, shape_of_schema

OURS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
SHAREGPT = pa.large_list(
    pa.struct([("from", pa.large_string()), ("value", pa.string()), ("weight", pa.int8())])
)


def shape_of(is_build: bool = False, **types: pa.DataType) -> Any:
    return shape_of_schema(pa.schema(list(types.items())), where="a.parquet", is_build=is_build)


def test_the_first_column_that_fits_is_taken() -> None:
    columns = {
        "instruction": pa.string(),
        "conversations": SHAREGPT,
        "messages": pa.dictionary(pa.int32(), pa.string()),
        "conversation": OURS,
    }
    taken = []
    while columns:
        taken.append(shape_of(**columns).column)
        del columns[taken[-1]]
    assert taken == ["conversation", "messages", "conversations", "instruction"]
    assert shape_of(conversation=pa.int64(), messages=OURS).column == "messages"


def test_rows_of_one_turn_and_of_several_answers_are_known_by_their_columns() -> None:
    texts = pa.list_(pa.string())
    assert shape_of(instruction=pa.string()).one_turn
    assert shape_of(is_build=True, conversation=OURS, instruction=pa.string()).one_turn
    assert not shape_of(conversation=OURS, instruction=pa.string()).one_turn
    assert shape_of(conversation=OURS, responses=texts).responses
    assert not shape_of(conversation=OURS, responses=pa.list_(pa.struct([("a", pa.int8())]))).responses
    assert shape_of_record({"instruction": "x", "responses": ["a", None]}, where="a").responses
    assert not shape_of_record({"instruction": "x", "responses": [{}]}, where="a").responses


@pytest.mark.parametrize(
    ("types", "reason"),
    [
        ({}, "the columns are none"),
        ({"text": pa.string()}, "the columns are text"),
        ({"messages": pa.list_(pa.string())}, "messages is list<"),
        ({"messages": pa.list_(pa.struct([("role", pa.string())]))}, "must be a list of structs with role"),
        ({"instruction": pa.string(), "input": pa.int64()}, "the column input is int64, must be text"),
        ({"messages": OURS, "system_prompt": pa.bool_()}, "the column system_prompt is bool, must be text"),
    ],
)
def test_columns_that_do_not_serve_are_named_with_their_types(
    types: dict[str, pa.DataType], reason: str
) -> None:
    with pytest.raises(SourceError) as caught:
        shape_of(**types)
    assert str(caught.value).startswith("a.parquet")
    assert reason in str(caught.value)


def test_columns_that_are_null_everywhere_do_no_harm() -> None:
    assert shape_of(instruction=pa.string(), input=pa.null(), system_prompt=pa.null()).column == "instruction"
