"""A directory as a store: objects get their name in one step, once their bytes are on the disk.

fsspec's own "create" on a local disk looks, then opens: neither exclusive nor atomic. What always holds:
who writes a temporary file holds a lock on it, which the kernel lifts however the process ends. So a cleaner
on the same host knows the file of a dead writer from that of a live one.
"""

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from magpie_ray.types import StoredObject

# Under the output, so that it is the same file system; listings leave it out.
_TEMPORARY = "_magpie/tmp"
# No write takes a day: what is older was left by a process that died, wherever it ran.
_LEFTOVER_SECONDS = 86_400.0
# File systems without locks, or with a lock server that is not there.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


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

    def list_objects(self, prefix: str) -> list[StoredObject]:
        found = []
        for path in self._files(os.path.join(self._root, prefix)):
            key = os.path.relpath(path, self._root).replace(os.sep, "/")
            if not key.startswith(_TEMPORARY + "/"):
                with suppress(FileNotFoundError):  # deleted since
                    about = os.stat(path)
                    found.append(StoredObject(key=key, size=about.st_size, modified=about.st_mtime))
        return found

    def now(self) -> float:
        return time.time()

    def delete(self, key: str) -> None:
        os.unlink(os.path.join(self._root, key))

    def remove_leftovers(self) -> int:
        """Removes the temporary files of dead writers; of those on other hosts, whose locks may not show, the
        old ones."""
        removed = 0
        for path in self._files(os.path.join(self._root, _TEMPORARY)):
            with suppress(FileNotFoundError):  # its writer, or another cleaner, was quicker
                removed += _remove_if_left(path)
        return removed

    def _files(self, directory: str) -> Iterator[str]:
        def fail(error: OSError) -> None:  # os.walk is silent about what it can't read
            if not isinstance(error, FileNotFoundError):
                raise error

        for parent, _, names in os.walk(directory, onerror=fail):
            yield from (os.path.join(parent, name) for name in names)

    @contextmanager
    def _temporary(self, data: bytes) -> Iterator[str]:
        """A path that holds the bytes, synced, and is gone afterwards."""
        directory = os.path.join(self._root, _TEMPORARY)
        _make_directory(directory)
        with _locked_file(directory) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                yield file.name
            except FileNotFoundError as exc:  # somebody removed it, or a directory: begin again
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), file.name) from exc
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(file.name)


def _locked_file(directory: str) -> BinaryIO:
    """A new file in that directory, locked by whoever holds it open."""
    while True:
        path = os.path.join(directory, f"{_host()}.{os.getpid()}-{uuid.uuid4().hex}")
        file = open(path, "xb")  # noqa: SIM115  returned open
        # Between the two steps a cleaner may have taken it for a dead writer's.
        if _lock(file) is not False and os.path.exists(path):
            return file
        file.close()


def _remove_if_left(path: str) -> bool:
    """Unlinks a temporary file if its writer is dead, and says whether it was."""
    host = os.path.basename(path).rpartition(".")[0]
    if host == _host():
        with open(path, "r+b") as file:  # for writing, as NFS grants no other exclusive lock
            locked = _lock(file)
            if locked:  # and unlinked under the lock, so that its writer can't take it in between
                os.unlink(path)
            if locked is not None:
                return locked
    left = time.time() - os.path.getmtime(path) > _LEFTOVER_SECONDS
    if left:
        os.unlink(path)
    return left


def _lock(file: BinaryIO) -> bool | None:
    """Whether the lock on an open file is now its own; None where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as exc:
        if exc.errno in _NO_LOCKS:
            return None
        raise
    return True


def _host() -> str:
    return os.uname().nodename


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
