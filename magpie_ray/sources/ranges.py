"""Bytes of a source's files, by range.

Invariants: a request that may succeed later is tried again, as long as storage.retries says. A file that has
become shorter is an error. No message holds a credential.
"""

import io
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import fsspec

from magpie_ray.errors import SourceError, StorageError
from magpie_ray.inputs.source import failure
from magpie_ray.storage.clients import connect
from magpie_ray.storage.deadline import Deadline
from magpie_ray.storage.failures import scrubbed
from magpie_ray.storage.retries import Access, Patience, call_with_retries

log = logging.getLogger(__name__)

# A file of this size or less is read whole: one request, where footer and columns would take several.
_WHOLE_BYTES = 1 << 20


class FileRanges:
    """The files below one place of a source. Threads may share it.

    url, options: of the source. base: the path that the names of files follow on its file system. key: of the
    config, for messages, such as source.path. patience: for how long a failed request is tried again.
    """

    def __init__(
        self,
        url: str,
        base: str,
        options: Mapping[str, object],
        *,
        key: str = "source.path",
        patience: Patience = Patience(),  # noqa: B008 - frozen
    ) -> None:
        self._url, self._base, self._options, self._key = url, base, dict(options), key
        self._patience, self._access, self._deadline = patience, Access(), Deadline()
        self._opened: tuple[int, Any] | None = None  # process, file system
        self.requests = 0
        self.bytes_read = 0

    def read(self, name: str, start: int, stop: int) -> bytes:
        """The bytes start..stop-1 of a file. StorageError: they can't be read; SourceError: it is shorter."""

        def announce(error: BaseException, wait_seconds: float, patience_seconds: float) -> None:
            text = scrubbed(error, self._options)
            log.warning("Could not read %s (%s); trying again in %.1f s", name, text, wait_seconds)

        def attempt() -> bytes:
            self.requests += 1
            data: bytes = self._fs().cat_file(self._base + name, start=start, end=stop)
            return data

        try:
            data = call_with_retries(
                attempt,
                verb="read",
                patience=self._patience,
                access=self._access,
                deadline=self._deadline,
                on_retry=announce,
            )
        except FileNotFoundError as exc:
            raise SourceError(
                f"{self._key}: {name} is gone since {self._url} was looked at: bring it back, or choose "
                "another output"
            ) from exc
        except Exception as exc:  # every file system has its own exceptions
            raise StorageError(failure(self._key, f"{name} can't be read", exc, self._options)) from exc
        if len(data) != stop - start:
            raise changed(name, f"it ends before byte {stop:,}")
        self.bytes_read += len(data)
        return data

    def open(self, name: str, start: int, stop: int) -> "RangedFile":
        """The bytes start..stop-1 of a file as a file of its own, which is read where it is asked for."""
        return RangedFile(lambda begin, end: self.read(name, start + begin, start + end), stop - start)

    def _fs(self) -> Any:
        # One client a process: it holds a thread and sockets that a forked child can't use.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            self._opened = opened = (os.getpid(), file_system(self._url, self._options)[0])
        return opened[1]


def file_system(url: str, options: Mapping[str, object]) -> tuple[Any, str]:
    """The file system of a source, and the path of the URL on it."""
    if "::" in url:
        fs, root = fsspec.url_to_fs(url, **options)
        return fs, str(root)
    protocol, separator, _ = url.partition("://")
    return connect(protocol if separator else "file", url, options)


class DamagedError(SourceError):
    """Bytes that can't be understood. A second reading tells whether they were damaged on their way."""


def changed(name: str, how: str) -> SourceError:
    """A file that is not as it was when the source was looked at."""
    return SourceError(
        f"{name} has changed since the source was looked at ({how}): a source may only get more files behind "
        "those that it has. Restore the file, or choose another output"
    )


class RangedFile(io.RawIOBase):
    """A file of known size in bytes, read by range. A small one is read whole."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read, self._size, self._position = read, size, 0
        self._whole: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = begin + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        start, stop = self._position, min(self._position + len(buffer), self._size)
        if start >= stop:
            return 0
        if self._size <= _WHOLE_BYTES:
            self._whole = self._whole or self._read(0, self._size)
            data = self._whole[start:stop]
        else:
            data = self._read(start, stop)
        buffer[: len(data)] = data
        self._position = stop
        return len(data)
