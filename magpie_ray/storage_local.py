"""A directory as a store: objects get their name in one step, once their bytes are on the disk.

fsspec's own "create" on a local disk looks, then opens: neither exclusive nor atomic.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

from magpie_ray.types import StoredObject

# Under the output, so that it is the same file system; listings leave it out.
_TEMPORARY = "_magpie/tmp"


class LocalStore:
    """Objects as files under `root`. Raises what the operating system raises."""

    def __init__(self, root: str, exclusive: bool) -> None:
        self._root = root
        self._exclusive = exclusive

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        target = os.path.join(self._root, key)
        with self._temporary(data) as temporary:
            _make_directory(os.path.dirname(target))
            if self._exclusive:
                self._link(temporary, target)
            elif os.path.lexists(target):
                raise FileExistsError(target)
            else:  # no hard links here (FUSE, exFAT): still atomic
                os.replace(temporary, target)
        _sync_directory(os.path.dirname(target))

    @staticmethod
    def _link(temporary: str, target: str) -> None:
        try:
            os.link(temporary, target)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost, and then reports our own link.
            if not os.path.samefile(temporary, target):
                raise

    def replace(self, key: str, data: bytes) -> None:
        target = os.path.join(self._root, key)
        with self._temporary(data) as temporary:
            _make_directory(os.path.dirname(target))
            os.replace(temporary, target)
        _sync_directory(os.path.dirname(target))

    def read(self, key: str) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            return file.read()

    def read_tail(self, key: str, nbytes: int) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - nbytes))
            return file.read()

    def size(self, key: str) -> int | None:
        path = os.path.join(self._root, key)
        try:
            return os.path.getsize(path) if not os.path.isdir(path) else None
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> list[StoredObject]:
        found = []
        for path in self._files(os.path.join(self._root, prefix)):
            key = os.path.relpath(path, self._root).replace(os.sep, "/")
            if not key.startswith(_TEMPORARY + "/"):
                with suppress(FileNotFoundError):  # deleted since
                    found.append(StoredObject(key=key, size=os.path.getsize(path)))
        return found

    def delete(self, key: str) -> None:
        os.unlink(os.path.join(self._root, key))

    def remove_leftovers(self, age_seconds: float) -> int:
        removed, now = 0, datetime.now(UTC).timestamp()
        for path in self._files(os.path.join(self._root, _TEMPORARY)):
            with suppress(FileNotFoundError):  # another run cleans too
                if now - os.path.getmtime(path) > age_seconds:
                    os.unlink(path)
                    removed += 1
        return removed

    def _files(self, directory: str) -> Iterator[str]:
        def fail(error: OSError) -> None:  # os.walk is silent about what it can't read
            if not isinstance(error, FileNotFoundError):
                raise error

        for parent, _, names in os.walk(directory, onerror=fail):
            yield from (os.path.join(parent, name) for name in names)

    @contextmanager
    def _temporary(self, data: bytes) -> Iterator[str]:
        directory = os.path.join(self._root, _TEMPORARY)
        _make_directory(directory)
        path = os.path.join(directory, f"{os.getpid()}-{uuid.uuid4().hex}")
        try:
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _make_directory(path: str) -> None:
    """Like os.makedirs, with the new names on disk, and a file in the way told from an object that exists."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directory(parent)
    try:
        os.mkdir(path)
    except FileExistsError as exc:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from exc
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:  # some network file systems write names through and can't sync a directory
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)
