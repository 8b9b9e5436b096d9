"""Rows of a file of JSON lines, from the places in it that are known; of a compressed one, from its start.

Invariants: a row is a line that is not blank. A plain file can be read from every INDEXED_ROWS-th row on, at
the byte that the index has.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import fsspec.compression
import pyarrow as pa

from magpie_ray.errors import MagpieError, SourceError
from magpie_ray.sources.ranges import DamagedError, RangedFile
from magpie_ray.sources.shapes import Shape
from magpie_ray.sources.streams import CHUNK_BYTES, CHUNK_ROWS, Taken

INDEXED_ROWS = 1024

_BOM = b"\xef\xbb\xbf"
_BUFFER_BYTES = 1 << 20
# Objects of Python take more than their text.
_BYTES_IN_MEMORY = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A row. number: of its line, from 1. start: its first byte in the (decompressed) file. nbytes: of it."""

    number: int
    start: int
    nbytes: int
    record: Mapping[str, Any]


def read_lines(name: str, opened: BinaryIO) -> Iterator[Line]:
    """The rows of a file from its beginning, or a known place, on. SourceError for what is no object."""
    position = 0
    for number, line in enumerate(opened, 1):
        start, position = position, position + len(line)
        text = line.removeprefix(_BOM) if not start else line
        if not text.strip():
            continue
        yield Line(number=number, start=start, nbytes=len(line), record=_record(name, number, text))


def _record(name: str, number: int, text: bytes) -> Mapping[str, Any]:
    where = f"{name}, line {number:,}"
    try:
        record = json.loads(text.decode())
    except UnicodeDecodeError as exc:
        raise SourceError(
            f"{where} is not UTF-8 (byte {exc.start} of the line): save the file as UTF-8"
        ) from exc
    except (ValueError, RecursionError) as exc:
        if text.lstrip().startswith(b"["):
            raise SourceError(f"{where}: {_array_hint(name)}") from exc
        raise SourceError(f"{where} is no valid JSON ({exc}): one object stands on each line") from exc
    if isinstance(record, list):
        raise SourceError(f"{where}: {_array_hint(name)}")
    if not isinstance(record, dict):
        raise SourceError(f"{where} holds no object: one object stands on each line")
    return record


def _array_hint(name: str) -> str:
    return (
        "the file is one JSON array, which can't be read row by row: write one object on each line, such as "
        f"with `jq -c '.[]' {name} > rows.jsonl`"
    )


def decompressed(opened: RangedFile, compression: str | None) -> BinaryIO:
    """The text of a file, read in pieces."""
    raw: Any = io.BufferedReader(opened, _BUFFER_BYTES)
    if compression is None:
        return cast(BinaryIO, raw)
    # A large buffer behind the decompressor, too: lines are asked for one by one.
    return cast(
        BinaryIO, io.BufferedReader(fsspec.compression.compr[compression](raw, mode="rb"), _BUFFER_BYTES)
    )


class JsonLines:
    """One file. open_range: bytes from one place to another. offsets: bytes of every INDEXED_ROWS-th row."""

    def __init__(
        self,
        name: str,
        open_range: Callable[[int, int], RangedFile],
        shape: Shape,
        *,
        size: int,
        offsets: Sequence[int],
        compression: str | None,
        kept: pa.Schema | None = None,
    ) -> None:
        self.name, self._open, self._shape, self._compression = name, open_range, shape, compression
        self._bounds = [*(offsets if compression is None else [0]), size]
        self._kept = kept or pa.schema([])

    def starts(self) -> Sequence[int]:
        return range(0, (len(self._bounds) - 1) * INDEXED_ROWS, INDEXED_ROWS)

    def held_bytes(self, segment: int) -> int:
        return _BUFFER_BYTES if self._compression is None else 4 * _BUFFER_BYTES

    def chunks(self, segment: int) -> Iterator["JsonChunk"]:
        records, nbytes = list[Mapping[str, Any]](), 0
        opened = decompressed(self._open(*self._bounds[segment : segment + 2]), self._compression)
        with reading_lines(self.name, opened):
            for line in read_lines(self.name, opened):
                records.append(line.record)
                nbytes += line.nbytes
                if len(records) >= CHUNK_ROWS or nbytes >= CHUNK_BYTES:
                    yield JsonChunk(records, nbytes, self._shape, self._kept)
                    records, nbytes = [], 0
            if records:
                yield JsonChunk(records, nbytes, self._shape, self._kept)


@contextmanager
def reading_lines(name: str, opened: BinaryIO) -> Iterator[None]:
    """What decompressors raise becomes a DamagedError that names the file, which is closed in the end."""
    try:
        yield
    except MagpieError:
        raise
    except Exception as exc:  # every decompressor has its own exceptions
        raise DamagedError(
            f"{name} can't be read ({exc}): write it anew, or leave it out of the source"
        ) from exc
    finally:
        opened.close()


class JsonChunk:
    """Some rows of JSON lines."""

    def __init__(
        self, records: Sequence[Mapping[str, Any]], nbytes: int, shape: Shape, kept: pa.Schema
    ) -> None:
        self._records, self._shape, self._kept = records, shape, kept
        self.nbytes = nbytes * _BYTES_IN_MEMORY

    def __len__(self) -> int:
        return len(self._records)

    def take(self, offsets: Sequence[int]) -> Taken:
        records = [self._records[offset] for offset in offsets]
        kept = None
        if self._kept.names:
            cells = [pa.array([record.get(f.name) for record in records], f.type) for f in self._kept]
            kept = pa.RecordBatch.from_arrays(cells, schema=self._kept)
        return Taken(values=records, kept=kept)
