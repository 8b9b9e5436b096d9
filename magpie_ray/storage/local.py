"""A directory as a store. A file gets its name in one step, after its bytes are on the disk.

fsspec's own "create" on a local disk looks, then opens: it is neither exclusive nor atomic.

Invariants: a writer holds a lock on its temporary file, and the kernel releases the lock however the process
ends. A cleaner on the same host can therefore tell a dead writer's file from a live writer's.
"""

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from magpie_ray.types import StoredObject

# Under the output, so that it is on the same file system. Listings leave it out.
_TEMPORARY = "_magpie/tmp"
# In the directory of a key that is on another file system. Readers leave out names that begin with a dot.
_TEMPORARY_ELSEWHERE = ".tmp"
# Where such directories may be.
_PLACES = ("", "data", "_magpie/runs", "_magpie/rejects")
# No write takes a day: an older file was left by a process that died, on whichever host.
_LEFTOVER_SECONDS = 86_400.0
# From file systems that have no locks, or whose lock server does not answer.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


class LocalStore:
    """A Store of files below `root`. Raises what the operating system raises."""

    can_be_exclusive = True
    writes_whole = True

    def __init__(self, root: str, exclusive: bool) -> None:
        self._root = root
        self._exclusive = exclusive
        self._mounts = set[str]()  # directories that lie on another file system than _magpie/

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        try:
            # A file system without hard links (FUSE, exFAT) still gets its files in one step.
            self._name(key, data, _link if self._exclusive else _move_to_new)
        except FileExistsError:
            path = os.path.join(self._root, key)
            if os.path.lexists(path) and not os.path.isfile(path):
                what = (
                    "a directory, a link that leads nowhere or another thing that is no file is in its place"
                )
                raise IsADirectoryError(errno.EISDIR, what, path) from None
            # The attempt before may have linked it, and then failed to sync the directory.
            if not (look_first and self.read(key) == data):
                raise

    def replace(self, key: str, data: bytes) -> None:
        self._name(key, data, os.replace)

    def read(self, key: str) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            return file.read()

    def read_tail(self, key: str, nbytes: int, size: int | None) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - nbytes))
            return file.read()

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, key: str) -> int | None:
        path = os.path.join(self._root, key)
        try:
            return os.path.getsize(path) if not os.path.isdir(path) else None
        except FileNotFoundError:
            return None

    def list_objects(self, prefix: str, beginning: str) -> list[StoredObject]:
        objects, start = [], os.path.join(self._root, prefix, beginning)
        for path in _files(os.path.join(self._root, prefix)):
            key = os.path.relpath(path, self._root).replace(os.sep, "/")
            if path.startswith(start) and not _is_temporary(key):
                with suppress(FileNotFoundError):  # deleted since
                    stat = os.stat(path)
                    objects.append(StoredObject(key=key, size=stat.st_size, modified=stat.st_mtime))
        return objects

    def now(self) -> float:
        return time.time()

    def delete(self, key: str) -> None:
        os.unlink(os.path.join(self._root, key))

    def remove_leftovers(self) -> int:
        """Removes temporary files of dead writers on this host. Locks of other hosts may not show here, so
        their files are removed once they are old."""
        removed = 0
        for directory in (_TEMPORARY, *(os.path.join(place, _TEMPORARY_ELSEWHERE) for place in _PLACES)):
            for path in _files(os.path.join(self._root, directory)):
                with suppress(FileNotFoundError):  # the writer or another cleaner removed it first
                    removed += _remove_leftover(path)
        return removed

    def completes_exclusively(self, key: str) -> bool:
        return True

    def _name(self, key: str, data: bytes, name: Callable[[str, str], None]) -> None:
        """Write the bytes under a temporary name, then call `name` with it and with the path of the key."""
        place = os.path.dirname(key)
        elsewhere = place in self._mounts
        try:
            with self._written(key, data, elsewhere=elsewhere) as (temporary, target):
                name(temporary, target)
        except OSError as exc:
            if exc.errno != errno.EXDEV or elsewhere:
                raise
            self._mounts.add(place)
            self._name(key, data, name)

    @contextmanager
    def _written(self, key: str, data: bytes, *, elsewhere: bool) -> Iterator[tuple[str, str]]:
        """The path of a synced file with these bytes, and the path of the key. The caller links the two.

        Leaving the context removes the first and syncs the second's name. elsewhere: the key's directory is
        on another file system than _magpie/, so the file is written beside it.
        """
        target = os.path.join(self._root, key)
        temporaries = os.path.join(os.path.dirname(target), _TEMPORARY_ELSEWHERE)
        directory = temporaries if elsewhere else os.path.join(self._root, _TEMPORARY)
        _make_directory(directory)
        with _locked_file(directory) as file:
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                _make_directory(os.path.dirname(target))
                yield file.name, target
            except FileNotFoundError as exc:  # the file or a directory was removed: retry the write
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), file.name) from exc
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(file.name)
        _sync_directory(os.path.dirname(target))


def _is_temporary(key: str) -> bool:
    return key.startswith(_TEMPORARY + "/") or f"/{_TEMPORARY_ELSEWHERE}/" in f"/{key}"


def _files(directory: str) -> Iterator[str]:
    def fail(error: OSError) -> None:  # by default os.walk skips what it can't read
        if not isinstance(error, FileNotFoundError):
            raise error

    for parent, _, names in os.walk(directory, onerror=fail):
        yield from (os.path.join(parent, name) for name in names)


def _link(temporary: str, target: str) -> None:
    try:
        os.link(temporary, target)
    except FileExistsError:
        # NFS may repeat a request whose reply was lost, and then reports our own link.
        if os.path.islink(target) or not os.path.samefile(temporary, target):
            raise
    except PermissionError as exc:
        # Linux says EPERM both of a file system without hard links and of an immutable directory.
        if exc.errno != errno.EPERM or _has_hard_links(temporary):
            raise
        raise OSError(errno.EOPNOTSUPP, "no hard links on this file system", temporary, None, target) from exc


def _has_hard_links(path: str) -> bool:
    other = f"{path}.link"
    try:
        os.link(path, other)
    except PermissionError:
        return False
    os.unlink(other)
    return True


def _move_to_new(temporary: str, target: str) -> None:
    if os.path.lexists(target):
        raise FileExistsError(target)
    os.replace(temporary, target)


def _locked_file(directory: str) -> BinaryIO:
    """A new file in that directory. The lock lasts as long as the file is open."""
    while True:
        path = os.path.join(directory, f"{_host()}.{os.getpid()}-{uuid.uuid4().hex}")
        file = open(path, "xb")  # noqa: SIM115  returned open
        # Between the open and the lock, a cleaner may have removed it as a dead writer's.
        if _lock(file) is not False and os.path.exists(path):
            return file
        file.close()


def _remove_leftover(path: str) -> bool:
    """Removes a temporary file if its writer is dead. Whether it did."""
    host = os.path.basename(path).rpartition(".")[0]
    if host == _host():
        with open(path, "r+b") as file:  # open for writing: NFS grants no exclusive lock otherwise
            locked = _lock(file)
            if locked:  # removed under the lock, so that the writer can't lock it in between
                os.unlink(path)
            if locked is not None:
                return locked
    is_old = time.time() - os.path.getmtime(path) > _LEFTOVER_SECONDS
    if is_old:
        os.unlink(path)
    return is_old


def _lock(file: BinaryIO) -> bool | None:
    """Takes the lock on an open file: False when another process holds it, None without locks."""
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
    """Like os.makedirs, but syncs each new name, and raises NotADirectoryError for a file in the way."""
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
