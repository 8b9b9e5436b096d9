"""Rows of a source, by number or in order.

Invariants: what is read and held is bounded, however large the source and its row groups are. A row is as it
was when the source was looked at, or loading it fails.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa

from magpie_ray.errors import SourceError
from magpie_ray.inputs.source import described_file
from magpie_ray.sources.index import SourceIndex
from magpie_ray.sources.json_lines import JsonLines
from magpie_ray.sources.messages import Messages, WrongRowError, content_of
from magpie_ray.sources.parquet_rows import ParquetRows
from magpie_ray.sources.ranges import DamagedError, FileRanges
from magpie_ray.sources.streams import FileRows, Segments, Taken
from magpie_ray.storage.retries import Patience
from magpie_ray.utils.background import DaemonExecutor

_CACHE_BYTES = 64 << 20
_MOST_FILES = 64
# Files that are read at once, such as the small ones of a build.
_READERS = 8
# Of `read_all`: rows that are loaded together, and about how many bytes of a file.
_READ_ROWS = 2048
_READ_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRow:
    """A row of a source.

    messages: (role, text), alternating, beginning with the user's; the system message is split off.
    system_prompt: its text, or that of the column system_prompt; None for none. responses: of an answer pass
    with several answers to the last message. kept: a batch of one row; None where no column is kept.
    """

    row_id: int
    messages: Messages
    system_prompt: str | None
    responses: tuple[str | None, ...] = ()
    kept: pa.RecordBatch | None = field(default=None, compare=False)


class SourceReader:
    """Loads rows. One thread at a time calls `load`.

    options: of the source's file system. keep: the columns that rows bring along, of those of the index.
    cache_bytes: what is held for the rows that come next, about.
    """

    def __init__(
        self,
        index: SourceIndex,
        options: Mapping[str, object],
        keep: Sequence[str] = (),
        *,
        patience: Patience = Patience(),  # noqa: B008 - frozen
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        known = index.kept_schema
        if missing := [name for name in keep if name not in known.names]:
            raise ValueError(f"keep has {missing[0]}, which look_at_source was not asked for")
        self._index, self._cache_bytes = index, cache_bytes
        self._kept = pa.schema([known.field(name) for name in keep])
        self._ranges = FileRanges(index.url, index.base, options, patience=patience)
        self._firsts = index.files["first_row"].to_numpy()
        self._files: OrderedDict[int, FileRows] = OrderedDict()
        self._readers = DaemonExecutor(_READERS, name="source")

    @property
    def requests(self) -> int:
        """Reads of files so far."""
        return self._ranges.requests

    @property
    def bytes_read(self) -> int:
        """Of files so far."""
        return self._ranges.bytes_read

    def load(self, rows: Sequence[int]) -> list[SourceRow]:
        """These rows, in their order.

        SourceError names a file that has changed, or a row that can't be used; StorageError: what can't be
        read.
        """
        if not len(rows):
            return []
        ids = np.asarray(rows, np.int64)
        if ids.min() < 0 or ids.max() >= self._index.num_rows:
            raise ValueError(f"rows {ids.min()}..{ids.max()} of a source of {self._index.num_rows} rows")
        unique = np.unique(ids)
        numbers = np.searchsorted(self._firsts, unique, side="right") - 1
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        shares = [
            (int(self._firsts[number]), self._file(number), self._name(number), share.tolist())
            for number, share in zip(np.unique(numbers).tolist(), np.split(unique, cuts), strict=True)
        ]
        if len(shares) == 1:
            loaded = {row.row_id: row for row in self._load(*shares[0])}
        else:
            parts = self._readers.map(lambda share: self._load(*share), shares)
            loaded = {row.row_id: row for part in parts for row in part}
        self._forget()
        return [loaded[row_id] for row_id in ids.tolist()]

    def close(self) -> None:
        """Ends its threads and lets go of what it holds."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._files.clear()

    def _load(self, first: int, file: FileRows, name: str, rows: Sequence[int]) -> list[SourceRow]:
        """Rows of one file. first: its first row."""
        try:
            return self._load_once(first, file, name, rows)
        except DamagedError:
            file.reset()
            return self._load_once(first, file, name, rows)

    def _load_once(self, first: int, file: FileRows, name: str, rows: Sequence[int]) -> list[SourceRow]:
        loaded = list[SourceRow]()
        try:
            for places, taken in file.take([row - first for row in rows]):
                loaded += self._rows(name, first, places, taken)
        except (pa.ArrowException, UnicodeError) as exc:
            raise DamagedError(
                f"{name}, rows {rows[0] - first:,} to {rows[-1] - first:,} can't be read ({exc}): write the "
                "file anew, or leave it out of the source"
            ) from exc
        return loaded

    def _rows(self, name: str, first: int, places: Sequence[int], taken: Taken) -> Iterator[SourceRow]:
        is_strict = self._index.kind == "files"
        for number, (place, values) in enumerate(zip(places, taken.values, strict=True)):
            try:
                content = content_of(values, self._index.shape, strict=is_strict)
            except WrongRowError as exc:
                raise SourceError(f"{name}, row {place:,} (row {first + place:,} of all): {exc}") from exc
            yield SourceRow(
                row_id=first + place,
                messages=content.messages,
                system_prompt=content.system_prompt,
                responses=content.responses,
                kept=taken.kept.slice(number, 1) if taken.kept is not None else None,
            )

    def _name(self, number: int) -> str:
        return str(self._index.files["name"][number].as_py())

    def _file(self, number: int) -> FileRows:
        if number not in self._files:
            self._files[number] = FileRows(partial(self._segments, number))
        self._files.move_to_end(number)
        return self._files[number]

    def _segments(self, number: int) -> Segments:
        index, ranges = self._index, self._ranges
        name, rows, size, offsets = (
            index.files[column][number].as_py() for column in ("name", "rows", "size", "offsets")
        )
        if index.format == "Parquet":
            opened = partial(ranges.open, name, 0, size)
            return ParquetRows(name, opened, index.shape, rows=rows, kept=self._kept)
        described = described_file(name, name)
        return JsonLines(
            name,
            partial(ranges.open, name),
            index.shape,
            size=size,
            offsets=offsets or (),
            compression=described.compression if described else None,
            kept=self._kept,
        )

    def _forget(self) -> None:
        """Let go of the files that were not used for longest, until what is held is within bounds."""
        held = sum(file.nbytes for file in self._files.values())
        while len(self._files) > 1 and (held > self._cache_bytes or len(self._files) > _MOST_FILES):
            _, file = self._files.popitem(last=False)
            held -= file.nbytes


def read_all(
    index: SourceIndex,
    options: Mapping[str, object],
    keep: Sequence[str] = (),
    *,
    first_row: int = 0,
) -> Iterator[SourceRow]:
    """All rows from `first_row` on, in order; some are loaded ahead. Errors are those of `load`."""
    size = int(np.sum(index.files["size"].to_numpy()))
    step = max(1, min(_READ_ROWS, _READ_BYTES * index.num_rows // max(1, size)))
    starts = iter(range(first_row, index.num_rows, step))
    reader, ahead = SourceReader(index, options, keep), DaemonExecutor(name="source rows")

    def load_next() -> Future[list[SourceRow]] | None:
        start = next(starts, None)
        if start is None:
            return None
        return ahead.submit(reader.load, range(start, min(start + step, index.num_rows)))

    try:
        coming = load_next()
        while coming is not None:
            rows, coming = coming.result(), load_next()
            yield from rows
    finally:
        ahead.shutdown(wait=False, cancel_futures=True)
        reader.close()
