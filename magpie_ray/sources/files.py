"""A look at files of others: Parquet or JSON lines, in the order of their names.

Invariants: of Parquet, footers and first rows are read, of several files at once; JSON lines are read wholly,
as their rows have to be counted. Nothing of a file is kept but its rows, size and places.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from magpie_ray.errors import PreflightError, SourceError
from magpie_ray.inputs.column_types import Typing, typing_of
from magpie_ray.inputs.readers import RawBatch, plain_type
from magpie_ray.inputs.scan import as_stored
from magpie_ray.inputs.source import Source, SourceFile, open_source
from magpie_ray.sources.found import Found, files_table
from magpie_ray.sources.json_lines import INDEXED_ROWS, Line, decompressed, read_lines, reading_lines
from magpie_ray.sources.messages import WrongRowError, content_of
from magpie_ray.sources.parquet_rows import ParquetChunk, open_parquet, reading
from magpie_ray.sources.ranges import FileRanges
from magpie_ray.sources.shapes import (
    RESPONSES,
    Shape,
    check_kept,
    shape_of_record,
    shape_of_schema,
)
from magpie_ray.sources.streams import CHUNK_BYTES
from magpie_ray.utils.background import DaemonExecutor

# Footers are small requests of mostly waiting.
_READERS = 32
# Of each Parquet file so many rows are checked before anything starts; the others when they are used.
_CHECKED_ROWS = 16
_CHECK_BYTES = 64 << 10
# Files that describe a Hugging Face data set, not rows.
_DESCRIPTIONS = {
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
    "dataset_dict.json",
    "metadata.json",
}
_SPLIT = re.compile(r"(?:^|/)(train|test|validation|valid|dev|eval)(?=[-_./])")
_LONG_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Looked:
    """One file. kinds: the types of its kept columns; None where their values were noted."""

    rows: int
    kinds: tuple[pa.DataType, ...] = ()
    offsets: tuple[int, ...] | None = None


def look_at_files(key: str, url: str, options: Mapping[str, object], keep: Sequence[str]) -> Found:
    """What lies in the files. PreflightError names the file, column or row that is wrong, and the remedy."""
    source = open_source(key, url, options, choose=lambda files: _rows_only(key, url, files))
    if source.format == "CSV":
        raise PreflightError(
            f"{key}: got {source.files[0].name}, which is CSV: write it as Parquet or JSON lines"
        )
    base = _base_of(source)
    ranges = FileRanges(url, base, options, key=key)
    shape, columns, kept, looked = (_parquet if source.format == "Parquet" else _json)(source, ranges, keep)
    if not sum(one.rows for one in looked):
        raise PreflightError(f"{key}: got {url}, which holds no rows ({source.files[0].name})")
    return Found(
        kind="files",
        base=base,
        format=source.format,
        identity=_identity(source, shape, kept),
        shape=shape,
        kept=kept,
        columns=columns,
        files=files_table(
            [file.name for file in source.files],
            [one.rows for one in looked],
            [_size(source, file) for file in source.files],
            [one.offsets for one in looked],
        ),
        warnings=tuple(_warnings(source)),
    )


def _rows_only(key: str, url: str, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    """Without the files beside the rows of a Hugging Face data set."""
    names = {file.name.rpartition("/")[2] for file in files}
    rows = [file for file in files if file.name.rpartition("/")[2] not in _DESCRIPTIONS or len(files) == 1]
    if not rows and names & {"state.json", "dataset_dict.json"}:
        raise PreflightError(
            f"{key}: got {url}, which was written by save_to_disk of datasets: write it as Parquet, with "
            "`datasets.load_from_disk(FOLDER).to_parquet(FILE)` for each split"
        )
    if any(file.format == "Parquet" for file in rows):
        rows = [file for file in rows if not file.name.lower().endswith(".json")]
    return rows


def _base_of(source: Source) -> str:
    """What the names of all files follow."""
    first = source.files[0]
    base = first.path.removesuffix(first.name)
    for file in source.files:
        if file.path != base + file.name:
            raise PreflightError(f"{source.key}: {file.path} has an empty part in its path: rename it")
    return base


def _size(source: Source, file: SourceFile) -> int:
    if file.size is None:
        raise PreflightError(
            f"{source.key}: the size of {file.name} is not told there: copy it to another place"
        )
    return file.size


def _warnings(source: Source) -> list[str]:
    warnings = []
    splits = {match[1] for file in source.files if (match := _SPLIT.search(file.name))}
    if len(splits) > 1:
        warnings.append(
            f"{source.url} has the splits {', '.join(sorted(splits))}, and all are read; a glob, such as "
            "data/train-*, reads one"
        )
    long = [file for file in source.files if file.compression and (file.size or 0) > _LONG_BYTES]
    if long:
        warnings.append(
            f"{long[0].name} is read from its beginning by each actor, as compressed JSON lines can't be "
            "read from another place: several smaller files, or Parquet, are faster"
        )
    return warnings


def _identity(source: Source, shape: Shape, kept: pa.Schema) -> str:
    kinds = [[field.name, str(field.type)] for field in kept]
    fields = {"format": source.format, "shape": asdict(shape), "kept": kinds}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


_Result = tuple[Shape, tuple[str, ...], pa.Schema, Sequence[_Looked]]


def _parquet(source: Source, ranges: FileRanges, keep: Sequence[str]) -> _Result:
    first = source.files[0]
    with reading(first.name), open_parquet(_whole(source, ranges, first)) as file:
        columns = tuple(file.schema_arrow.names)
        shape = shape_of_schema(file.schema_arrow, where=f"{source.key}: {first.name}")
    pool = DaemonExecutor(_READERS, name="source")
    try:
        looked = list(pool.map(lambda file: _footer(source, ranges, file, shape, keep), source.files))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    typings = [typing_of(source, name) for name in keep]
    for file, one in zip(source.files, looked, strict=True):
        for typing, kind in zip(typings, one.kinds, strict=True):
            typing.note(_batch(file, ()), pa.array([], kind))
    kept = pa.schema([as_stored(source.key, pa.field(typing.name, typing.type)) for typing in typings])
    return shape, columns, kept, looked


def _footer(
    source: Source, ranges: FileRanges, file: SourceFile, shape: Shape, keep: Sequence[str]
) -> _Looked:
    with (
        reading(file.name),
        open_parquet(_whole(source, ranges, file), buffer_bytes=_CHECK_BYTES) as opened,
    ):
        schema = opened.schema_arrow
        check_kept(keep, schema.names, section=source.key.partition(".")[0], where=file.name)
        found = shape_of_schema(schema, where=f"{source.key}: {file.name}")
        if found != shape:
            raise PreflightError(
                f"{source.key}: {file.name} has its messages in {_shape_text(found)}, and "
                f"{source.files[0].name} in {_shape_text(shape)}: all files have the same columns"
            )
        wanted = [name for name in dict.fromkeys([*shape.columns, *keep]) if name in schema.names]
        for batch in opened.iter_batches(_CHECKED_ROWS, columns=wanted, use_threads=False):
            _check_rows(file.name, ParquetChunk(batch, shape, pa.schema([])), shape)
            break
        kinds = [schema.field(name).type for name in keep]
        decoded = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds]
        return _Looked(rows=opened.metadata.num_rows, kinds=tuple(map(plain_type, decoded)))


def _shape_text(shape: Shape) -> str:
    return f"{shape.column} with {RESPONSES}" if shape.responses else shape.column


def _check_rows(name: str, chunk: ParquetChunk, shape: Shape) -> None:
    for row, values in enumerate(chunk.take(range(len(chunk))).values):
        try:
            content_of(values, shape)
        except WrongRowError as exc:
            raise SourceError(f"{name}, row {row:,}: {exc}") from exc


def _json(source: Source, ranges: FileRanges, keep: Sequence[str]) -> _Result:
    typings = [typing_of(source, name) for name in keep]
    shape: Shape | None = None
    seen, looked = dict[str, None](), list[_Looked]()
    for file in source.files:
        rows, offsets, cells = 0, list[int](), _Cells(file, typings)
        opened = decompressed(_whole(source, ranges, file), file.compression)
        with reading_lines(file.name, opened):
            for line in read_lines(file.name, opened):
                where = f"{file.name}, line {line.number:,}"
                shape = shape or shape_of_record(line.record, where=where)
                try:
                    content_of(line.record, shape)
                except WrongRowError as exc:
                    raise SourceError(f"{where}: {exc}") from exc
                if rows % INDEXED_ROWS == 0:
                    offsets.append(line.start)
                rows += 1
                seen.update(dict.fromkeys(line.record))
                cells.add(line)
            cells.note()
        looked.append(_Looked(rows=rows, offsets=None if file.compression else tuple(offsets)))
    if shape is None:
        raise PreflightError(f"{source.key}: got {source.url}, which holds no rows ({source.files[0].name})")
    # A column that a row lacks is null there; one that no row has is a mistake.
    check_kept(keep, list(seen), section=source.key.partition(".")[0], where=source.url)
    kept = pa.schema([as_stored(source.key, pa.field(typing.name, typing.type)) for typing in typings])
    return shape, tuple(seen), kept, looked


class _Cells:
    """The kept cells of a file of JSON lines, some rows at a time, for the types of their columns."""

    def __init__(self, file: SourceFile, typings: Sequence[Typing]) -> None:
        self._file, self._typings = file, typings
        self._lines, self._texts, self._bytes = list[int](), list[list[str | None]](), 0

    def add(self, line: Line) -> None:
        if not self._typings:
            return
        cells = [line.record.get(typing.name) for typing in self._typings]
        self._texts.append([None if cell is None else json.dumps(cell) for cell in cells])
        self._lines.append(line.number)
        self._bytes += line.nbytes
        if len(self._lines) >= INDEXED_ROWS or self._bytes >= CHUNK_BYTES:
            self.note()

    def note(self) -> None:
        if self._lines:
            batch = _batch(self._file, self._lines)
            for typing, texts in zip(self._typings, zip(*self._texts, strict=True), strict=True):
                typing.note(batch, pa.array(texts, pa.string()))
        self._lines, self._texts, self._bytes = [], [], 0


def _batch(file: SourceFile, places: Sequence[int]) -> RawBatch:
    """Where cells stand, for the messages on their types."""
    return RawBatch(file=file, unit="line", places=places, prompts=pa.nulls(0), weights=None, kept=())


def _whole(source: Source, ranges: FileRanges, file: SourceFile) -> Any:
    return ranges.open(file.name, 0, _size(source, file))
