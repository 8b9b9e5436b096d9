"""The rows of a source, some at a time, as they stand in its files.

text_readers has the formats of text; column_types makes typed columns of raw cells. Invariant: a problem
names the file and the line or row.
"""

from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.batches import BATCH_BYTES, BATCH_ROWS, RawBatch, Wanted, require_columns
from magpie_ray.inputs.source import Source, SourceFile
from magpie_ray.inputs.text_readers import read_csv, read_json


def read_batches(
    source: Source, file: SourceFile, wanted: Wanted, *, batch_rows: int = BATCH_ROWS
) -> Iterator[RawBatch]:
    """The rows of one file. PreflightError for a file that is broken, or lacks a column that is wanted."""
    with source.reading(file), source.open(file) as opened:
        if file.format == "Parquet":
            yield from _parquet(source, file, opened, wanted, batch_rows)
        elif file.format == "CSV":
            yield from read_csv(source, file, opened, wanted, batch_rows)
        else:
            yield from read_json(source, file, opened, wanted, batch_rows)


def _parquet(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, batch_rows: int
) -> Iterator[RawBatch]:
    # In buffers of a page or so: a row group may be as large as the file.
    with pq.ParquetFile(opened, buffer_size=BATCH_BYTES, pre_buffer=False) as table:
        schema = table.schema_arrow
        require_columns(source, file, wanted, schema.names)
        for name in wanted.names:
            if schema.names.count(name) > 1:
                raise PreflightError(f"{file.name} has the column {name} twice")
        section = source.key.partition(".")[0]
        _check_type(f"{section}.system_prompt", file, schema.field(wanted.prompt), _is_text, "text")
        if wanted.weight:
            _check_type(f"{section}.weight", file, schema.field(wanted.weight), _is_number, "numbers")
        begin = 0
        rows = max(1, min(batch_rows, BATCH_BYTES // max(1, _bytes_of_row(table))))
        for batch in table.iter_batches(rows, columns=list(wanted.names), use_threads=False):
            places = range(begin, begin + len(batch))
            begin += len(batch)
            columns = {name: batch.column(name) for name in wanted.names}
            for name, column in columns.items():
                _check_utf8(file, name, column, places)
            prompts, kept = columns[wanted.prompt], tuple(plain(columns[name]) for name in wanted.keep)
            weights = plain(columns[wanted.weight]).cast(pa.float64(), safe=False) if wanted.weight else None
            yield RawBatch(
                file=file,
                unit="row",
                places=places,
                prompts=plain(prompts).cast(pa.string()),
                weights=weights,
                kept=kept,
            )


def _bytes_of_row(table: pq.ParquetFile) -> int:
    metadata = table.metadata
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return int(size // max(1, metadata.num_rows))


def _check_type(key: str, file: SourceFile, field: pa.Field, fits: Any, phrase: str) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not fits(kind) and not pa.types.is_null(kind):
        raise PreflightError(
            f"{key}: got {field.name}, which is {field.type} in {file.name}, must be a column of {phrase}"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def plain(column: pa.Array) -> pa.Array:
    """The values of a column, without a dictionary, which each file has for itself, and without views."""
    values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = plain_type(values.type)
    return values if kind == values.type else values.cast(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without views, as views of texts are Arrow's own layout, which few readers of Parquet know."""
    types = pa.types
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(plain_type(field.type)) for field in kind.fields])
    return kind


def _check_utf8(file: SourceFile, name: str, column: pa.Array, places: range) -> None:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as exc:
        bad = next((i for i in range(len(column)) if not _is_valid(column[i : i + 1])), 0)
        raise PreflightError(
            f"{file.name}, row {places[bad]:,}: {name} holds text that is not UTF-8, or is damaged ({exc})"
        ) from exc


def _is_valid(column: pa.Array) -> bool:
    try:
        pa.concat_arrays([column]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
