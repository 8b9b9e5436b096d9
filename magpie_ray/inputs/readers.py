"""The rows of a source, some at a time, as they stand in its files.

Each format has a reader; column_types makes typed columns of raw cells. Invariants: a batch has at
most BATCH_ROWS rows, and about as many bytes as BATCH_BYTES; a problem names the file and the line or row.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractBufferedFile

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.source import Source, SourceFile

BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20

# A cell of a CSV file may be as long; Python's own limit is 128 KB.
_LONGEST_CELL = 1 << 28
_DELIMITERS = (",", ";", "\t", "|")
_LINES_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Names of the columns that a build uses, in the source."""

    prompt: str
    keep: tuple[str, ...] = ()
    weight: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys([self.prompt, *([self.weight] if self.weight else []), *self.keep]))


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBatch:
    """Rows of one file.

    places: their lines or rows, as messages count them (unit). prompts: text, null for none. weights: as
    float64; None where none are asked for. kept: one array for each kept column: as it is in the file
    (Parquet), text (CSV), or JSON texts (JSON lines).
    """

    file: SourceFile
    unit: str
    places: Sequence[int]
    prompts: pa.Array
    weights: pa.Array | None
    kept: tuple[pa.Array, ...]

    def __len__(self) -> int:
        return len(self.places)

    def place(self, index: int) -> str:
        """Where the row stands, as the beginning of a message."""
        return f"{self.file.name}, {self.unit} {self.places[index]:,}"


def read_batches(
    source: Source, file: SourceFile, wanted: Wanted, *, batch_rows: int = BATCH_ROWS
) -> Iterator[RawBatch]:
    """The rows of one file. PreflightError for a file that is broken, or lacks a column that is wanted."""
    with source.reading(file), source.open(file) as opened:
        if file.format == "Parquet":
            yield from _parquet(source, file, opened, wanted, batch_rows)
            return
        rows = _Rows(file, wanted, batch_rows)
        if file.format == "CSV":
            yield from _csv(source, file, opened, wanted, rows)
        else:
            yield from _json(source, file, opened, wanted, rows)


def _require(source: Source, file: SourceFile, wanted: Wanted, there: Sequence[str]) -> None:
    section = source.key.partition(".")[0]
    keys = {f"{section}.system_prompt": wanted.prompt, f"{section}.weight": wanted.weight}
    for key, name in [*keys.items(), *((f"{section}.keep", name) for name in wanted.keep)]:
        if name is not None and name not in there:
            known = ", ".join(there) or "none"
            raise PreflightError(f"{key}: got {name}, but {file.name} has no such column; there are {known}")


def _parquet(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, batch_rows: int
) -> Iterator[RawBatch]:
    # In buffers of a page or so: a row group may be as large as the file.
    with pq.ParquetFile(opened, buffer_size=BATCH_BYTES, pre_buffer=False) as table:
        schema = table.schema_arrow
        _require(source, file, wanted, schema.names)
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


class _Rows:
    """Gathers rows of texts into batches."""

    def __init__(self, file: SourceFile, wanted: Wanted, batch_rows: int) -> None:
        self._file, self._wanted, self._batch_rows = file, wanted, batch_rows
        self._clear()

    def _clear(self) -> None:
        self._places: list[int] = []
        self._prompts: list[str | None] = []
        self._weights: list[float | None] = []
        self._kept: list[list[str | None]] = [[] for _ in self._wanted.keep]
        self._bytes = 0

    def add(self, line: int, prompt: str | None, weight: float | None, kept: Sequence[str | None]) -> None:
        self._places.append(line)
        self._prompts.append(prompt)
        self._weights.append(weight)
        for cells, cell in zip(self._kept, kept, strict=True):
            cells.append(cell)
        self._bytes += len(prompt or "") + sum(len(cell or "") for cell in kept)

    @property
    def is_full(self) -> bool:
        return len(self._places) >= self._batch_rows or self._bytes >= BATCH_BYTES

    def take(self) -> Iterator[RawBatch]:
        """What has gathered, if anything."""
        if self._places:
            yield RawBatch(
                file=self._file,
                unit="line",
                places=self._places,
                prompts=self._array(self._prompts),
                weights=pa.array(self._weights, pa.float64()) if self._wanted.weight else None,
                kept=tuple(map(self._array, self._kept)),
            )
            self._clear()

    def _array(self, texts: list[str | None]) -> pa.Array:
        try:
            return pa.array(texts, pa.string())
        except UnicodeEncodeError as exc:
            bad = next(i for i, text in enumerate(texts) if text and not _is_encodable(text))
            where = f"{self._file.name}, line {self._places[bad]:,}"
            raise PreflightError(f"{where} holds half of a surrogate pair, which is no text: {exc}") from exc


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _lines(file: SourceFile, opened: BinaryIO) -> Iterator[str]:
    """The lines of a text file, with their ends. The byte-order mark is left out."""
    # A remote file of fsspec copies a block of some MB for each line.
    lines = io.BufferedReader(opened, _LINES_BYTES) if isinstance(opened, AbstractBufferedFile) else opened
    for number, line in enumerate(lines, 1):
        try:
            yield (line.removeprefix(_BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as exc:
            raise PreflightError(
                f"{file.name}, line {number:,} is not UTF-8 (byte {exc.start} of the line): save the file as "
                "UTF-8 (in a spreadsheet: CSV UTF-8)"
            ) from exc


def _csv(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, rows: _Rows
) -> Iterator[RawBatch]:
    csv.field_size_limit(_LONGEST_CELL)
    lines = _lines(file, opened)
    first = next(lines, "")
    # Spreadsheets of some countries write semicolons.
    widths = {mark: len(next(csv.reader([first], delimiter=mark), [])) for mark in _DELIMITERS}
    mark = max(_DELIMITERS, key=lambda mark: widths[mark])
    reader = csv.reader(chain([first], lines), delimiter=mark, strict=True)
    names, begun = list[str](), 0
    try:
        names = [name.strip() for name in next(reader, [])]
        _require(source, file, wanted, names)
        for name in wanted.names:
            if names.count(name) > 1:
                raise PreflightError(f"{file.name}, line 1 names the column {name} twice")
        at = {name: names.index(name) for name in wanted.names}
        begun = reader.line_num
        for cells in reader:
            line, begun = begun + 1, reader.line_num
            if not any(cells):
                continue  # a line of a spreadsheet that nobody has filled in
            if len(cells) != len(names):
                raise PreflightError(
                    f"{file.name}, line {line:,} has {len(cells)} cells, and the first line names "
                    f"{len(names)} columns: is a comma or a quote in a text not inside quotes?"
                )
            weight = _weight_of(file, line, wanted, cells[at[wanted.weight]]) if wanted.weight else None
            rows.add(
                line, cells[at[wanted.prompt]] or None, weight, [cells[at[n]] or None for n in wanted.keep]
            )
            if rows.is_full:
                yield from rows.take()
    except csv.Error as exc:
        raise PreflightError(
            f"{file.name}, line {begun + 1:,} is no valid CSV ({exc}): inside quotes a quote is doubled"
        ) from exc
    yield from rows.take()


def _weight_of(file: SourceFile, line: int, wanted: Wanted, cell: str) -> float | None:
    try:
        return float(cell) if cell else None
    except ValueError as exc:
        raise PreflightError(f"{file.name}, line {line:,}: {wanted.weight} is {cell!r}, no number") from exc


def _json(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, rows: _Rows
) -> Iterator[RawBatch]:
    number, seen = 0, dict[str, None]()
    for number, line in enumerate(_lines(file, opened), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as exc:
            raise PreflightError(
                f"{file.name}, line {number:,} is no valid JSON ({exc}): one object stands on each line"
            ) from exc
        if not isinstance(record, dict):
            raise PreflightError(
                f"{file.name}, line {number:,} holds no object: one object stands on each line"
            )
        seen.update(dict.fromkeys(record))
        rows.add(number, *_cells(file, number, record, wanted))
        if rows.is_full:
            yield from rows.take()
    # A key that a row lacks is null there; one that no row has is a mistake.
    _require(source, file, wanted, list(seen))
    yield from rows.take()


def _cells(
    file: SourceFile, number: int, record: Mapping[str, Any], wanted: Wanted
) -> tuple[str | None, float | None, list[str | None]]:
    prompt, weight = record.get(wanted.prompt), record.get(wanted.weight) if wanted.weight else None
    where = f"{file.name}, line {number:,}"
    if prompt is not None and not isinstance(prompt, str):
        raise PreflightError(f"{where}: {wanted.prompt} is {prompt!r}, must be text or null")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float)):
        raise PreflightError(f"{where}: {wanted.weight} is {weight!r}, must be a number")
    kept = [record.get(name) for name in wanted.keep]
    texts = [
        None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False) for value in kept
    ]
    return prompt, None if weight is None else float(weight), texts
