"""The rows of tables that are text: CSV files and JSON lines.

Invariant: a problem names the file and the line.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, BinaryIO

import pyarrow as pa
from fsspec.spec import AbstractBufferedFile

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.batches import BATCH_BYTES, RawBatch, Wanted, require_columns
from magpie_ray.inputs.source import Source, SourceFile

# A cell of a CSV file may be as long; Python's own limit is 128 KB.
_LONGEST_CELL = 1 << 28
_DELIMITERS = (",", ";", "\t", "|")
_LINES_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"


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


def read_csv(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, batch_rows: int
) -> Iterator[RawBatch]:
    """The rows of a CSV file. PreflightError for one that is broken, or lacks a column that is wanted."""
    rows = _Rows(file, wanted, batch_rows)
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
        require_columns(source, file, wanted, names)
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


def read_json(
    source: Source, file: SourceFile, opened: BinaryIO, wanted: Wanted, batch_rows: int
) -> Iterator[RawBatch]:
    """The rows of JSON lines. PreflightError for a file that is broken, or lacks a column that is wanted."""
    rows = _Rows(file, wanted, batch_rows)
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
    require_columns(source, file, wanted, list(seen))
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
