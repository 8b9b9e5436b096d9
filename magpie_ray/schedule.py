"""Which build a run works on where output.path has placeholders: they are resolved once for each build.

Owns _magpie/builds/ in the parent of such a path (see output_path.Place): of a build that has a name, what
its placeholders stand for. What always holds: whoever comes with the same output.build_id gets the same path,
on whatever day; a path that only has {date} in it is the same for all runs of a day.
"""

import uuid
from dataclasses import asdict
from datetime import UTC, datetime

from magpie_ray.build import parse_json, to_json
from magpie_ray.config import Config
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.output_path import Tick, fill, has_placeholders
from magpie_ray.storage import READ_SECONDS, ObjectNotFoundError, Storage

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
