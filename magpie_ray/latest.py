"""The newest build that is complete, of all builds of an output.path with placeholders.

Owns, in the parent of such a path: latest.json, which says where that build is; on a disk a symbolic link
`latest` too; and _magpie/finished/, one object for each build that was ever complete. What always holds:
latest.json names a build that is complete, and in the end the one whose tick is the newest, in whatever order
builds end. For this every build first creates an object of its own, named by its time, and then whoever
writes latest.json looks again which is the last of them.
"""

import logging
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress

from magpie_ray import build, manifest
from magpie_ray.build import parse_json, to_json
from magpie_ray.config import Config
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, StorageError
from magpie_ray.output_path import LATEST, Tick
from magpie_ray.schedule import parent_storage
from magpie_ray.storage import ObjectNotFoundError, Storage

log = logging.getLogger(__name__)


def publish(config: Config, storage: Storage) -> None:
    """Let `latest` know of the build in `storage`, if it is one of several, complete, and where it was made.

    StorageError when that can't be written; the same command again then writes it.
    """
    record = build.read_build(storage)
    if record is None or record.tick is None or not manifest.is_marked_complete(storage):
        return
    tick = Tick(**record.tick)
    if Storage(tick.path).url != storage.url:
        return  # a copy: its place is not the one that the path says
    parent = parent_storage(tick, config)
    folder = f"_magpie/finished/{tick.place.latest}"
    fields = {"path": storage.url, "build_id": tick.build_id, "time": tick.time, "finished": build.now()}
    key = f"{folder}/{tick.order}.json"
    with suppress(AlreadyExistsError):
        parent.create(key, to_json(fields))
    pointer, written = f"{tick.place.latest}.json", None
    while (newest := parent.list(folder)[-1].key) != written:
        found = parent.read(newest)
        if _now_there(parent, pointer) != found:
            parent.replace(pointer, found)
        _link(parent, tick.place.latest, str(parse_json(found, newest)["path"]))
        written = newest
    log.info("%s is %s", parent.display(pointer), parse_json(parent.read(pointer), pointer).get("path"))


def follow(url: str, storage_options: Mapping[str, object], *, retry_seconds: float) -> str:
    """Where `latest` points; any other URL as it is. CorruptBuildError for what is no such pointer."""
    parent, slash, name = url.rstrip("/").rpartition("/")
    if LATEST not in url or parent.endswith(":/"):
        return url
    storage = Storage(parent or slash or ".", storage_options, retry_seconds=retry_seconds)
    key = f"{name}.json"
    try:
        path = parse_json(storage.read(key), key).get("path")
    except StorageError:  # there is none, or it can't be read: the build itself then says what is wrong
        return url
    if not isinstance(path, str):
        raise CorruptBuildError(f"{storage.display(key)} names no path")
    return path


def _now_there(storage: Storage, key: str) -> bytes:
    try:
        return storage.read(key)
    except ObjectNotFoundError:
        return b""


def _link(parent: Storage, name: str, target: str) -> None:
    """On a disk, a link for those who read files and not latest.json. What is no link is left alone."""
    if "://" in parent.url:
        return
    path = os.path.join(parent.url, name)
    if os.path.lexists(path) and not os.path.islink(path):
        log.warning("%s is in the way of a link to the latest build", path)
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    os.symlink(os.path.relpath(target, os.path.dirname(path)), temporary)
    os.replace(temporary, path)
