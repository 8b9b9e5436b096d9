"""The columns of a data set that a query makes."""

import decimal

import pyarrow as pa
import pytest

from magpie_ray.curation.selection import plan_selection
from magpie_ray.errors import ConfigError

INT, TEXT = pa.int64(), pa.string()


@pytest.mark.parametrize(
    ("query", "names"),
    [
        (["row_id", "a"], ["row_id", "source_row_id", "a"]),
        (["a", "row_id"], ["row_id", "a", "source_row_id"]),
        (["row_id", "source_row_id"], ["row_id", "source_row_id"]),
        (["a"], ["row_id", "a"]),
    ],
)
def test_row_id_comes_first_and_counts_anew(query: list[str], names: list[str]) -> None:
    selection = plan_selection(pa.schema([(name, INT) for name in query]))
    assert selection.schema.names == names
    batches = [pa.record_batch([[n, n + 1]] * len(query), names=query) for n in (10, 20)]
    numbered = pa.Table.from_batches(selection.numbered(batches)).to_pydict()
    assert numbered["row_id"] == [0, 1, 2, 3]
    assert all(numbered[name] == [10, 11, 20, 21] for name in names[1:])


def test_sums_and_labels_get_types_that_trainers_read() -> None:
    query = pa.schema(
        [
            ("total", pa.decimal128(38, 0)),
            ("label", pa.dictionary(pa.uint8(), TEXT)),
            ("said", pa.large_list(pa.struct([("role", TEXT)]))),
            ("vector", pa.list_(pa.field("l", pa.float32()), 3)),
        ]
    )
    selection = plan_selection(query)
    assert [field.type for field in selection.schema][1:] == [
        pa.int64(),
        TEXT,
        pa.list_(pa.struct([("role", TEXT)])),
        pa.list_(pa.float32(), 3),
    ]
    rows = [{"total": decimal.Decimal(7), "label": "easy", "said": [{"role": "user"}], "vector": [0, 1, 2]}]
    (batch,) = selection.numbered([pa.RecordBatch.from_pylist(rows, schema=query)])
    assert batch.to_pylist() == [{"row_id": 0, **rows[0]}]
    rows[0]["total"] = decimal.Decimal(2**70)
    with pytest.raises(ConfigError, match="total can't be stored as int64"):
        list(selection.numbered([pa.RecordBatch.from_pylist(rows, schema=query)]))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ([("a", INT), ("a", INT)], "returns a twice: name them apart with AS"),
        ([("row_id", INT), ("row_id", INT)], r"returns row_id twice: join with USING \(row_id\)"),
        ([("a", pa.null())], r"a is null in every row: give it a type, CAST\(NULL AS VARCHAR\) AS a"),
        ([("a", pa.month_day_nano_interval())], "a has a type that Parquet lacks"),
    ],
)
def test_columns_that_no_data_set_can_have_are_refused(
    columns: list[tuple[str, pa.DataType]], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        plan_selection(pa.schema(columns))
