"""The builds of an output.path with placeholders: which of them a run works on, and which is the newest.

Owns the objects in the folder that such builds share (dataset.layout has their keys): what each build_id
stands for, every build that was ever complete, and latest.json, which names the newest of these; on a disk
also a symbolic link `latest` to it.

Invariants: a build_id stands for one build, whenever it is used again. latest.json names a complete
build, and in the end the one with the newest tick, in whatever order builds end: each complete build first
creates an object named by its time, and after a write of latest.json the writer looks again for a newer one.
"""

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from magpie_ray.config.loading import JobConfig
from magpie_ray.config.output_path import LATEST, Tick, fill, has_placeholders
from magpie_ray.dataset import build_record, layout, manifest
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.storage.storage import READ_SECONDS, Storage

log = logging.getLogger(__name__)

_ID_DIGITS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class CompleteBuild:
    """A complete build, as latest.json names it. time: of its tick; finished: when it was found complete."""

    path: str
    build_id: str = ""
    time: str = ""
    finished: str = ""


_TICK = TypeAdapter(Tick)
_COMPLETE_BUILD = TypeAdapter(CompleteBuild)


def resolve(
    config: JobConfig, *, claim: bool = True, look: bool = True, clock: Callable[[], str] = layout.now
) -> tuple[JobConfig, Tick | None]:
    """The config of one build, with a literal output.path, and its tick where the path had placeholders.

    claim: record the build's name, so that the next run with that name works on the same build; otherwise
    nothing is written. look: read what the name stands for. clock: the time as records have it.
    PreflightError when the records of names can't be read or written, or the name stands for a build of
    another output.path.
    """
    template = config.output.path
    if not has_placeholders(template):
        return _with_path(config, fill(template, {})), None
    build_id = config.output.build_id or uuid.uuid4().hex[:_ID_DIGITS]
    tick = Tick(template=template, time=clock(), build_id=build_id)
    if look and (config.output.build_id or tick.is_unique):
        tick = _first_tick(config, tick, claim=claim)
    return _with_path(config, tick.path), tick


def resume_override(config: JobConfig, tick: Tick | None) -> str | None:
    """The override that makes the same command work on this build again; None where none is needed."""
    if tick is None or config.output.build_id or not tick.is_unique:
        return None
    return f"output.build_id={tick.build_id}"


def update_latest(config: JobConfig, storage: Storage) -> None:
    """Let latest.json name the build in `storage`, unless a newer one is complete.

    Does nothing for a build that is not complete, not one of several, or a copy in another place.
    StorageError when latest.json can't be written; the same command run again then writes it.
    """
    record = build_record.read_build(storage)
    if record is None or record.tick is None or not manifest.is_marked_complete(storage):
        return
    tick, place = record.tick, record.tick.place.latest
    if Storage(tick.path).url != storage.url:
        return
    parent, folder = _parent_storage(tick, config), layout.finished_prefix(place)
    complete = CompleteBuild(path=storage.url, build_id=tick.build_id, time=tick.time, finished=layout.now())
    with suppress(AlreadyExistsError):
        parent.create(f"{folder}{tick.order}.json", layout.to_json(asdict(complete)))
    pointer, newest = layout.latest_key(place), ""
    while (last := max(f"{folder}{tick.order}.json", _newest_finished(parent, folder))) != newest:
        newest, raw = last, parent.read(last)
        path = layout.parse_record(raw, _COMPLETE_BUILD, parent.display(newest)).path
        if not parent.exists(pointer) or parent.read(pointer) != raw:
            parent.replace(pointer, raw)
        _link(parent, place, path)
        log.info("%s is %s", parent.display(pointer), path)


def _newest_finished(parent: Storage, folder: str) -> str:
    """The key of the listed complete build with the newest tick; "" without one. Skips other files."""
    names = [item.key.removeprefix(folder) for item in parent.list_objects(folder)]
    names = [name for name in names if name.endswith(".json") and not name.startswith((".", "_"))]
    return folder + names[-1] if names else ""


def follow_latest(url: str, storage_options: Mapping[str, object], *, retry_seconds: float) -> str:
    """The path of the build that a `latest` stands for; any other URL unchanged.

    CorruptBuildError when latest.json names no path.
    """
    parent, slash, name = url.rstrip("/").rpartition("/")
    if LATEST not in url or parent.endswith(":/"):
        return url
    storage = Storage(parent or slash or ".", storage_options, retry_seconds=retry_seconds)
    try:
        complete = layout.read_record(storage, layout.latest_key(name), _COMPLETE_BUILD)
    except StorageError:  # reading the build itself then fails with the reason
        return url
    return complete.path if complete else url


def _first_tick(config: JobConfig, tick: Tick, *, claim: bool) -> Tick:
    """The tick of the first run with this build_id: `tick` itself, unless one is recorded."""
    storage = _parent_storage(tick, config)
    key = layout.build_id_key(tick.place.latest, tick.build_id)
    try:
        if claim:
            with suppress(AlreadyExistsError):
                storage.create(key, layout.to_json(asdict(tick)))
                return tick
        first = layout.read_record(storage, key, _TICK) or tick
        path = first.path
    except (StorageError, CorruptBuildError, ValueError) as exc:
        raise PreflightError(
            f"output.build_id: {storage.display(key)} does not say which build {tick.build_id} is: {exc}"
        ) from exc
    if first.template != tick.template:
        raise PreflightError(
            f"output.build_id: got {tick.build_id!r}, which has stood for {path} since {first.time}, "
            f"of output.path {first.template!r}: choose another name, or set output.path to {path}"
        )
    return first


def _parent_storage(tick: Tick, config: JobConfig) -> Storage:
    """The folder that the builds of a path have in common."""
    output = config.output
    return Storage(
        tick.place.parent,
        output.storage_options,
        exclusive=not output.single_writer,
        retry_seconds=READ_SECONDS,
    )


def _with_path(config: JobConfig, path: str) -> JobConfig:
    # The path is literal from here on: braces in it are not placeholders.
    output = config.output.model_copy(update={"path": path})
    return config.model_copy(update={"output": output})


def _link(parent: Storage, name: str, target: str) -> None:
    """On a disk, link `name` to the build, for readers of files. A file or folder of that name stays."""
    if "://" in parent.url:
        return
    path = os.path.join(parent.url, name)
    if os.path.lexists(path) and not os.path.islink(path):
        log.warning("%s is no link, so it stays, and no link leads to the latest build", path)
        return
    temporary = f"{path}.{uuid.uuid4().hex}"
    os.symlink(os.path.relpath(target, os.path.dirname(path)), temporary)
    os.replace(temporary, path)
