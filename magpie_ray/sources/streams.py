"""Rows of one file, at any place: read on from the nearest place that can be found.

A file is cut into segments, which can be found by range: row groups of Parquet, some lines of JSON, a
compressed file as a whole. Within a segment, rows come in order, some at a time. Invariant: what is held is a
few streams, each with the rows that it has read last.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from magpie_ray.sources.ranges import changed

CHUNK_ROWS = 1024
CHUNK_BYTES = 4 << 20
# Places in one file that rows are read at by turns.
_MOST_STREAMS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Some rows: the values of each by column, and their kept columns, None where none are kept."""

    values: Sequence[Mapping[str, Any]]
    kept: pa.RecordBatch | None


class Chunk(Protocol):
    """Rows that were read together. nbytes: about what they take in memory."""

    def __len__(self) -> int: ...

    @property
    def nbytes(self) -> int: ...

    def take(self, offsets: Sequence[int]) -> Taken:
        """Rows of the chunk, by their places in it."""
        ...


class Segments(Protocol):
    """A file, as its format cuts it."""

    name: str

    def starts(self) -> Sequence[int]:
        """The first row of each segment, in order, counted within the file. May read the file's footer."""
        ...

    def chunks(self, segment: int) -> Iterator[Chunk]:
        """The rows of a segment, in order."""
        ...

    def held_bytes(self, segment: int) -> int:
        """What a stream of the segment holds beside its last chunk."""
        ...


class _Stream:
    def __init__(self, segments: Segments, segment: int, first_row: int) -> None:
        self.segment, self.held_bytes = segment, segments.held_bytes(segment)
        self._name, self._chunks = segments.name, segments.chunks(segment)
        self.start, self.stop, self.chunk = first_row, first_row, None  # type: tuple[int, int, Chunk | None]

    def advance_to(self, row: int) -> Chunk:
        """The chunk that has the row, which is not before the last chunk."""
        while self.chunk is None or self.stop <= row:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise changed(self._name, f"it ends before row {row:,}")
            self.start, self.stop, self.chunk = self.stop, self.stop + len(chunk), chunk
        return self.chunk


class FileRows:
    """The rows of one file. One thread at a time uses it. open_file: the file, of which nothing is read."""

    def __init__(self, open_file: Callable[[], Segments]) -> None:
        self._open = open_file
        self.reset()

    def reset(self) -> None:
        """Forget what was read: bytes may be damaged on their way."""
        self._segments, self._streams = self._open(), list[_Stream]()

    @property
    def nbytes(self) -> int:
        """What is held, about."""
        return sum(
            (stream.chunk.nbytes if stream.chunk else 0) + stream.held_bytes for stream in self._streams
        )

    def take(self, rows: Sequence[int]) -> Iterator[tuple[Sequence[int], Taken]]:
        """These rows, counted within the file, in ascending order; some at a time."""
        done = 0
        while done < len(rows):
            stream = self._stream_before(rows[done])
            try:
                chunk = stream.advance_to(rows[done])
            except BaseException:  # a stream that failed gives nothing more
                self._streams.remove(stream)
                raise
            until = bisect_left(rows, stream.stop, done)
            wanted = rows[done:until]
            yield wanted, chunk.take([row - stream.start for row in wanted])
            done = until

    def _stream_before(self, row: int) -> _Stream:
        """A stream that comes to the row: the nearest one, else a new one from the segment's start."""
        starts = self._segments.starts()
        segment = bisect_right(starts, row) - 1
        fit = [stream for stream in self._streams if stream.segment == segment and stream.start <= row]
        if fit:
            stream = max(fit, key=lambda one: one.start)
            self._streams.remove(stream)
        else:
            stream = _Stream(self._segments, segment, starts[segment])
        self._streams = [*self._streams[-(_MOST_STREAMS - 1) :], stream]
        return stream
