"""The files of all tables of a query, as the only file system that DuckDB may read.

DuckDB sees `source://TABLE/NUMBER.ENDING` and nothing else: no bucket, no folder of this machine, no
credential. Invariants: a file is read by ranges and never written; what a store raised is kept in `failure`,
because DuckDB passes only its text on.
"""

import io
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from magpie_ray.errors import MagpieError

SCHEME = "source"

# DuckDB reads a column of a row group at once. Smaller reads, such as of headers of pages, share a request.
_WINDOW_BYTES = 256 << 10
# DuckDB asks when a file was changed, to know whether what it remembers is still right. No file changes.
_UNCHANGED = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One file. name: for messages. size: in bytes.

    read_range: the bytes start..stop-1, of which there is at least one. It raises MagpieError.
    """

    name: str
    size: int
    read_range: Callable[[int, int], bytes]

    def read_tail(self, nbytes: int) -> bytes:
        """The last `nbytes`, or all of a smaller file."""
        return self.read_range(max(0, self.size - nbytes), self.size) if self.size else b""


class TableFiles(AbstractFileSystem):  # type: ignore[misc]
    """The files by their path below `source://`."""

    protocol = SCHEME
    cachable = False

    def __init__(self, files: Mapping[str, TableFile]) -> None:
        super().__init__()
        self._files = files
        self.failure: MagpieError | None = None

    def open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        """The bytes of a file, which threads may share."""
        return _Handle(self._file(path), self._note)

    def glob(self, path: str, **_: Any) -> list[str]:
        """The file of this name, which is never a pattern."""
        name = str(self._strip_protocol(path))
        return [name] if name in self._files else []

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is such a file."""
        return self._strip_protocol(path) in self._files

    def info(self, path: str, **_: Any) -> dict[str, object]:
        """Name, size in bytes and type of a file."""
        return {"name": self._strip_protocol(path), "size": self._file(path).size, "type": "file"}

    def modified(self, path: str) -> datetime:
        """Always the same time."""
        return _UNCHANGED

    def with_names(self, text: str) -> str:
        """A message of DuckDB with the names that users know the files by."""
        for path, file in self._files.items():
            text = text.replace(f"{SCHEME}://{path}", file.name)
        return text

    def _file(self, path: str) -> TableFile:
        try:
            return self._files[str(self._strip_protocol(path))]
        except KeyError:
            raise FileNotFoundError(path) from None

    def _note(self, failure: MagpieError) -> None:
        self.failure = failure


class _Handle(io.RawIOBase):
    """An open file. DuckDB reads one from several threads at once, so each thread has its own position."""

    def __init__(self, file: TableFile, on_failure: Callable[[MagpieError], None]) -> None:
        self._file, self._on_failure, self._here = file, on_failure, _Here()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._here.at, io.SEEK_END: self._file.size}[whence]
        self._here.at = begin + offset
        return self._here.at

    def tell(self) -> int:
        return self._here.at

    def read(self, size: int = -1) -> bytes:
        here, end = self._here, self._file.size
        stop = end if size < 0 else min(end, here.at + size)
        if stop <= here.at:
            return b""
        start, here.at = here.at, stop
        if stop - start >= _WINDOW_BYTES:
            return self._range(start, stop)
        if not here.start <= start <= stop <= here.start + len(here.window):
            here.start, here.window = start, self._range(start, min(end, start + _WINDOW_BYTES))
        return here.window[start - here.start : stop - here.start]

    def _range(self, start: int, stop: int) -> bytes:
        try:
            return self._file.read_range(start, stop)
        except MagpieError as exc:
            self._on_failure(exc)
            raise


class _Here(threading.local):
    """Where a thread is in a file, and the bytes that it has read last, from `start` on."""

    def __init__(self) -> None:
        self.at = self.start = 0
        self.window = b""
