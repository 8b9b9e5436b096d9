"""File systems whose files grow while they are written: a file gets its name by a move, once it is whole.

sftp, ftp, smb, webhdfs and others, with fsspec's own way of writing. None of them can create a file
exclusively, so one run at a time writes there.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from magpie_ray.types import StoredObject

# Listings leave it out.
TEMPORARY = "_magpie/tmp"
# No write takes a day: an older file was left by a process that died.
_LEFTOVER_SECONDS = 86_400.0

# Object stores whose client creates whole objects, and exclusively where asked: the condition travels with
# the upload. Others look and then write.
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"}


def creates_whole_objects(fs: Any, protocol: str) -> bool:
    """Whether `pipe_file` makes an object visible whole or not at all, and knows mode="create"."""
    return protocol in _OBJECT_STORES and _has_its_own(fs, "pipe_file")


def renames(fs: Any) -> bool:
    """Whether `mv` is a rename of its own, and not fsspec's copy and removal."""
    return _has_its_own(fs, "mv")


def _has_its_own(fs: Any, method: str) -> bool:
    """Whether the file system has a method, or the coroutine behind it, that is not fsspec's."""

    def differs(base: type, name: str) -> bool:
        own = getattr(type(fs), name, None)
        return own is not None and own is not getattr(base, name, None)

    return differs(AbstractFileSystem, method) or differs(AsyncFileSystem, f"_{method}")


def write(fs: Any, root: str, key: str, data: bytes) -> None:
    """Write an object in one step, over an existing one if there is one."""
    temporary, target = f"{root}/{TEMPORARY}/{uuid.uuid4().hex}", f"{root}/{key}"
    for path in (temporary, target):
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        fs.pipe_file(temporary, data)
        _move(fs, temporary, target)
    except BaseException:
        with suppress(Exception):
            fs.rm_file(temporary)
        raise


def _move(fs: Any, temporary: str, target: str) -> None:
    """Some systems rename over a file, some refuse to, and webhdfs does not say that it refused.

    An error may also mean that the file was moved and the answer was lost.
    """
    try:
        fs.mv(temporary, target)
    except Exception:
        if not fs.exists(target):
            raise
    if fs.exists(temporary):
        fs.rm_file(target)
        fs.mv(temporary, target)


def without_temporaries(objects: list[StoredObject]) -> list[StoredObject]:
    return [stored for stored in objects if not stored.key.startswith(TEMPORARY + "/")]


def leftovers(objects: list[StoredObject]) -> Iterator[str]:
    """The keys of temporary files that dead writers left."""
    for stored in objects:
        old = stored.modified is None or time.time() - stored.modified > _LEFTOVER_SECONDS
        if stored.key.startswith(TEMPORARY + "/") and old:
            yield stored.key
