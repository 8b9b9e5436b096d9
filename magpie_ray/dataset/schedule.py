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
from dataclasses import asdict
from datetime import UTC, datetime

from magpie_ray.config.output_path import LATEST, Tick, fill, has_placeholders
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record, layout, manifest
from magpie_ray.dataset.layout import parse_json, to_json
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.storage.storage import READ_SECONDS, ObjectNotFoundError, Storage

log = logging.getLogger(__name__)


def publish(config: Config, storage: Storage) -> None:
    """Let `latest` know of the build in `storage`, if it is one of several, complete, and where it was made.

    StorageError when that can't be written; the same command again then writes it.
    """
    record = build_record.read_build(storage)
    if record is None or record.tick is None or not manifest.is_marked_complete(storage):
        return
    tick = Tick(**record.tick)
    if Storage(tick.path).url != storage.url:
        return  # a copy: its place is not the one that the path says
    parent = parent_storage(tick, config)
    folder = f"_magpie/finished/{tick.place.latest}"
    fields = {"path": storage.url, "build_id": tick.build_id, "time": tick.time, "finished": layout.now()}
    key = f"{folder}/{tick.order}.json"
    with suppress(AlreadyExistsError):
        parent.create(key, to_json(fields))
    pointer, written = f"{tick.place.latest}.json", None
    while (newest := parent.list_objects(folder)[-1].key) != written:
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


_ID_DIGITS = 10


def resolve(config: Config, *, claim: bool = True) -> tuple[Config, Tick | None]:
    """The config of one build, with a literal output.path, and its tick where the path had placeholders.

    With `claim` the name of a build is recorded, so that the next run with it comes to the same build;
    without, nothing is written. PreflightError when the records can't be read or written.
    """
    template = config.output.path
    if not has_placeholders(template):
        return _with_path(config, fill(template, {})), None
    tick = Tick(
        template=template,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        build_id=config.output.build_id or uuid.uuid4().hex[:_ID_DIGITS],
    )
    if config.output.build_id or tick.is_unique:
        tick = _known(config, tick, claim=claim)
    return _with_path(config, tick.path), tick


def goes_on_with(config: Config, tick: Tick | None) -> str | None:
    """What to add to the command so that it goes on with this build; None where the command alone does."""
    if tick is None or config.output.build_id or not tick.is_unique:
        return None
    return f"output.build_id={tick.build_id}"


def parent_storage(tick: Tick, config: Config) -> Storage:
    """The folder that the builds of a path have in common."""
    output = config.output
    return Storage(
        tick.place.parent,
        output.storage_options,
        exclusive=not output.single_writer,
        retry_seconds=READ_SECONDS,
    )


def _with_path(config: Config, path: str) -> Config:
    # The path is literal from here on: braces in it are not looked at again.
    output = config.output.model_copy(update={"path": path})
    return config.model_copy(update={"output": output})


def _known(config: Config, tick: Tick, *, claim: bool) -> Tick:
    """The tick that the name stood for when it first came, which is now unless there is a record."""
    storage = parent_storage(tick, config)
    key = f"_magpie/builds/{tick.place.latest}/{tick.build_id}.json"
    try:
        if claim:
            try:
                storage.create(key, to_json(asdict(tick)))
            except AlreadyExistsError:
                pass
            else:
                return tick
        found = parse_json(storage.read(key), key)
    except ObjectNotFoundError:
        return tick
    except (StorageError, CorruptBuildError) as exc:
        raise PreflightError(f"Which build {tick.build_id} is can't be told. {exc}") from exc
    try:
        known = Tick(**found)
        known.path  # noqa: B018  a time that can be understood
    except (TypeError, ValueError) as exc:
        raise PreflightError(f"{storage.display(key)} is foreign or damaged: {exc}") from exc
    if known.template != tick.template:
        raise PreflightError(
            f"output.build_id: got {tick.build_id!r}, which has stood for {known.path} since {known.time}, "
            f"of output.path {known.template!r}: choose another name, or set output.path to {known.path}"
        )
    return known
