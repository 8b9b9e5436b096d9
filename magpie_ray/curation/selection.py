"""The columns of a data set that a query makes: what becomes of the query's own columns, and of their types.

Invariants: row_id is the first column and counts from 0; a row's earlier row_id is its source_row_id, unless
the query names a source_row_id of its own; the columns follow from the query, never from its rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from magpie_ray.errors import ConfigError

ROW_ID = "row_id"
SOURCE_ROW_ID = "source_row_id"

_ROW_ID_FIELD = pa.field(ROW_ID, pa.int64(), nullable=False)
# DuckDB adds integers up in 128 bits, which no trainer reads.
_SUM = pa.decimal128(38, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """schema: of the data set. taken: the places of the query's columns that follow row_id, in order."""

    schema: pa.Schema
    taken: tuple[int, ...]

    def numbered(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of a query as rows of the data set, numbered from 0.

        ConfigError for a number that is too large for its column.
        """
        start = 0
        for batch in batches:
            stop = start + batch.num_rows
            fields = list(self.schema)[1:]
            columns = [
                _cast(batch.column(place), field) for place, field in zip(self.taken, fields, strict=True)
            ]
            yield pa.record_batch([pa.array(range(start, stop), pa.int64()), *columns], schema=self.schema)
            start = stop


def plan_selection(query: pa.Schema) -> Selection:
    """The data set of a query with these columns. ConfigError for columns that no data set can have."""
    if twice := [name for name, times in Counter(query.names).items() if times > 1]:
        remedy = "join with USING (row_id)" if ROW_ID in twice else "name them apart with AS"
        raise ConfigError(f"--sql: the query returns {', '.join(twice)} twice: {remedy}, or leave one out")
    has_own = SOURCE_ROW_ID in query.names
    fields, taken = [_ROW_ID_FIELD], []
    for place, field in enumerate(query):
        if field.name == ROW_ID and has_own:
            continue
        name = SOURCE_ROW_ID if field.name == ROW_ID else field.name
        fields.append(pa.field(name, _stored_type(field.name, field.type)))
        taken.append(place)
    if not taken:
        raise ConfigError("--sql: the query returns no column beside row_id: name those that rows shall have")
    return Selection(schema=pa.schema(fields), taken=tuple(taken))


def _stored_type(name: str, kind: pa.DataType) -> pa.DataType:
    """The type in the files. The names of inner fields are Arrow's own, so that equal types are equal."""
    if kind == _SUM:
        return pa.int64()
    if pa.types.is_dictionary(kind):
        return _stored_type(name, kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_stored_type(name, kind.value_type))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_stored_type(name, kind.value_type), kind.list_size)
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _stored_type(name, field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_stored_type(name, kind.key_type), _stored_type(name, kind.item_type))
    if pa.types.is_null(kind):
        raise ConfigError(
            f"--sql: {name} is null in every row: give it a type, CAST(NULL AS VARCHAR) AS {name}"
        )
    if pa.types.is_interval(kind) or isinstance(kind, pa.BaseExtensionType):
        raise ConfigError(f"--sql: {name} has a type that Parquet lacks ({kind}): CAST it to another one")
    return kind


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    try:
        return column.cast(field.type)
    except pa.ArrowException as exc:
        raise ConfigError(f"--sql: {field.name} can't be stored as {field.type}: {exc}") from exc
