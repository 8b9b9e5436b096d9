"""Rows of a Parquet file, by its row groups.

Invariants: a small row group is read by one request for neighbouring columns; of a large one only some pages
at a time are held. Columns that are not asked for are not read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import MagpieError
from magpie_ray.inputs.readers import plain
from magpie_ray.sources.ranges import DamagedError, RangedFile, changed
from magpie_ray.sources.shapes import Shape, fields_of, is_list
from magpie_ray.sources.streams import CHUNK_BYTES, CHUNK_ROWS, Taken

# Of a larger row group pages are read one after the other.
_WHOLE_GROUP_BYTES = 16 << 20


class ParquetRows:
    """One file, cut into its row groups.

    open_file: its bytes, anew at each call. rows: how many it must have, None where that is not known yet.
    kept: the types of the columns that go along.
    """

    def __init__(
        self,
        name: str,
        open_file: Callable[[], RangedFile],
        shape: Shape,
        *,
        rows: int | None = None,
        kept: pa.Schema | None = None,
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        self.name, self._open, self._shape = name, open_file, shape
        self._rows, self._kept, self._chunk_rows = rows, kept or pa.schema([]), chunk_rows

    @cached_property
    def _footer(self) -> tuple[pq.FileMetaData, list[str]]:
        """The metadata, and the columns to read."""
        with reading(self.name), open_parquet(self._open()) as file:
            if self._rows not in (None, file.metadata.num_rows):
                raise changed(self.name, f"it had {self._rows:,} rows, and has {file.metadata.num_rows:,}")
            names = file.schema_arrow.names
            if missing := [name for name in self._kept.names if name not in names]:
                raise changed(self.name, f"the column {missing[0]} is gone")
            wanted = [*self._shape.columns, *self._kept.names]
            return file.metadata, [name for name in dict.fromkeys(wanted) if name in names]

    def starts(self) -> Sequence[int]:
        metadata = self._footer[0]
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        return list(accumulate(sizes, initial=0))[:-1] or [0]

    def held_bytes(self, segment: int) -> int:
        size = self._bytes_of(segment, "total_compressed_size")
        return size if size <= _WHOLE_GROUP_BYTES else CHUNK_BYTES

    def chunks(self, segment: int) -> Iterator["ParquetChunk"]:
        metadata, columns = self._footer
        if segment >= metadata.num_row_groups:
            return
        is_whole = self._bytes_of(segment, "total_compressed_size") <= _WHOLE_GROUP_BYTES
        bytes_of_row = self._bytes_of(segment, "total_uncompressed_size") // max(
            1, metadata.row_group(segment).num_rows
        )
        rows = max(1, min(self._chunk_rows, CHUNK_BYTES // max(1, bytes_of_row)))
        with (
            reading(self.name),
            open_parquet(self._open(), metadata, buffer_bytes=0 if is_whole else CHUNK_BYTES) as file,
        ):
            # Without threads: several files are read at once.
            for batch in file.iter_batches(rows, row_groups=[segment], columns=columns, use_threads=False):
                yield ParquetChunk(batch, self._shape, self._kept)

    def _bytes_of(self, segment: int, which: str) -> int:
        """Of the columns to read."""
        metadata, columns = self._footer
        if segment >= metadata.num_row_groups:
            return 0
        group = metadata.row_group(segment)
        chunks = (group.column(number) for number in range(group.num_columns))
        tops = set(columns)
        return sum(
            getattr(chunk, which)
            for chunk in chunks
            if chunk.path_in_schema in tops or chunk.path_in_schema.partition(".")[0] in tops
        )


class ParquetChunk:
    """Some rows of a row group."""

    def __init__(self, batch: pa.RecordBatch, shape: Shape, kept: pa.Schema) -> None:
        self._batch, self._kept = batch, kept
        self._columns = [name for name in shape.columns if name in batch.schema.names]

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @property
    def nbytes(self) -> int:
        return int(self._batch.nbytes)

    def take(self, offsets: Sequence[int]) -> Taken:
        # A copy of the rows that are wanted: a slice would keep the whole chunk in memory.
        taken = self._batch.take(pa.array(offsets, pa.int64()))
        columns = {name: _values(taken.column(name)) for name in self._columns}
        kept = None
        if self._kept.names:
            cells = [plain(taken.column(field.name)).cast(field.type) for field in self._kept]
            kept = pa.RecordBatch.from_arrays(cells, schema=self._kept)
            kept.validate(full=True)
        values: list[Mapping[str, Any]] = [
            dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)
        ]
        return Taken(values=values, kept=kept)


def _values(column: pa.Array) -> list[Any]:
    """The values of a column; messages as (role, content), in a tenth of the time that structs take."""
    kind = column.type
    if not is_list(kind) or not pa.types.is_struct(kind.value_type):
        return cast(list[Any], column.to_pylist())
    names = fields_of(kind.value_type)
    assert names is not None, "the shape was checked"
    messages = column.flatten()
    cells = dict(zip(messages.type.names, messages.flatten(), strict=True))
    pairs = list(zip(*(cells[name].to_pylist() for name in names), strict=True))
    lengths = column.value_lengths().to_pylist()
    stops = accumulate(length or 0 for length in lengths)
    return [
        None if length is None else pairs[stop - length : stop]
        for length, stop in zip(lengths, stops, strict=True)
    ]


def open_parquet(
    file: RangedFile, metadata: pq.FileMetaData | None = None, *, buffer_bytes: int = 0
) -> pq.ParquetFile:
    """A Parquet file. buffer_bytes: how much of a column is read at once; 0: all of a row group."""
    return pq.ParquetFile(
        cast(BinaryIO, file),
        metadata=metadata,
        buffer_size=buffer_bytes,
        pre_buffer=not buffer_bytes,
        page_checksum_verification=True,
    )


@contextmanager
def reading(name: str) -> Iterator[None]:
    """What pyarrow raises becomes a DamagedError that names the file."""
    try:
        yield
    except MagpieError:
        raise
    except (*PARQUET_ERRORS, NotImplementedError) as exc:
        raise DamagedError(
            f"{name} can't be read as Parquet ({exc}): write it anew, or leave it out of the source"
        ) from exc
