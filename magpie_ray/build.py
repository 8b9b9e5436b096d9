"""The records of a build under _magpie/: what it is (build.json) and who worked on it (runs/).

What always holds: build.json is created exclusively before anything else and never changes; a build has one
identity, and whoever comes with another one is refused with the keys that differ; a run number is taken by
exclusive creation, so no two runs of a build share one.
"""

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from magpie_ray import plan
from magpie_ray.errors import AlreadyExistsError, BuildMismatchError, CorruptBuildError
from magpie_ray.storage import ObjectNotFoundError, Storage

BUILD_KEY = "_magpie/build.json"
RUNS_PREFIX = "_magpie/runs/"
# Version of the layout and of all records of a build.
LAYOUT_VERSION = 1

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
    """What build.json holds.

    identity: everything that decides the rows, by dotted key; the fingerprint is its hash. `config`,
    `versions` and `created` are recorded for readers and decide nothing.
    """

    identity: Mapping[str, object]
    rows_per_partition: int
    chat_format: Mapping[str, object]
    columns: tuple[str, ...]
    compression: str
    config: Mapping[str, object]
    versions: Mapping[str, str]
    created: str = field(default_factory=lambda: now())
    layout_version: int = LAYOUT_VERSION

    @property
    def fingerprint(self) -> str:
        """Identity and grid, hashed: what every footer of the build carries."""
        return plan.fingerprint({**self.identity, "output.rows_per_partition": self.rows_per_partition})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One execution of `generate`. outcome: running, done, failed or interrupted; `cause` when it failed.

    token: random, so that two drivers that start in the same second never write equal records.
    """

    number: int
    token: str
    num_rows: int
    host: str
    started: str
    config: Mapping[str, object] = field(default_factory=dict)
    ended: str | None = None
    outcome: str = "running"
    cause: str | None = None

    @property
    def key(self) -> str:
        return f"{RUNS_PREFIX}{self.number:06d}.json"


def now() -> str:
    """The time in UTC, as all records have it: ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_build(storage: Storage) -> BuildRecord | None:
    """build.json, or None where there is no build yet. CorruptBuildError when it can't be understood."""
    try:
        raw = storage.read(BUILD_KEY)
    except ObjectNotFoundError:
        return None
    fields = parse_json(raw, BUILD_KEY)
    found = fields.pop("fingerprint", None)
    if fields.get("layout_version") != LAYOUT_VERSION:
        raise CorruptBuildError(
            f"{storage.display(BUILD_KEY)} has layout version {fields.get('layout_version')!r}, this "
            f"magpie-ray reads {LAYOUT_VERSION}: use the version that began the build, or another output.path"
        )
    try:
        record = BuildRecord(**(fields | {"columns": tuple(fields["columns"])}))
    except (KeyError, TypeError) as exc:
        raise CorruptBuildError(f"{storage.display(BUILD_KEY)} is incomplete or foreign: {exc}") from exc
    if record.fingerprint != found:
        raise CorruptBuildError(
            f"{storage.display(BUILD_KEY)} was changed by hand: its fingerprint does not match its identity. "
            "Restore it, or choose another output.path"
        )
    return record


def open_build(storage: Storage, wanted: BuildRecord) -> BuildRecord:
    """Create the build, or join the one that is there. BuildMismatchError when that is another one."""
    fields = asdict(wanted) | {"fingerprint": wanted.fingerprint}
    try:
        storage.create(BUILD_KEY, to_json(fields))
    except AlreadyExistsError:
        found = read_build(storage)
        assert found is not None, "build.json is never deleted"
        check_same_build(found, wanted, storage)
        return found
    return wanted


def check_same_build(found: BuildRecord, wanted: BuildRecord, storage: Storage) -> None:
    """BuildMismatchError naming every key in which the two differ, with both values."""
    if found.fingerprint == wanted.fingerprint:
        return
    ours = {**wanted.identity, "output.rows_per_partition": wanted.rows_per_partition}
    theirs = {**found.identity, "output.rows_per_partition": found.rows_per_partition}
    differing = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    lines = [f"  {key}: the build has {_shown(theirs, key)}, now {_shown(ours, key)}" for key in differing]
    raise BuildMismatchError(
        f"{storage.url} holds a build made with other settings:\n"
        + "\n".join(lines)
        + "\nA build never mixes two configs: set these back, or choose another output.path."
    )


def _shown(identity: Mapping[str, object], key: str) -> str:
    text = json.dumps(identity[key], ensure_ascii=False) if key in identity else "(not set)"
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def read_runs(storage: Storage) -> list[RunRecord]:
    """All runs so far, in order of their numbers."""
    records = []
    for found in storage.list(RUNS_PREFIX):
        try:
            records.append(RunRecord(**parse_json(storage.read(found.key), found.key)))
        except TypeError as exc:
            raise CorruptBuildError(f"{storage.display(found.key)} is incomplete or foreign: {exc}") from exc
    return sorted(records, key=lambda record: record.number)


def start_run(storage: Storage, *, num_rows: int, host: str, config: Mapping[str, object]) -> RunRecord:
    """Take the next free run number by exclusive creation."""
    number = max((int(found.key[len(RUNS_PREFIX) : -5]) for found in storage.list(RUNS_PREFIX)), default=0)
    token = uuid.uuid4().hex
    while True:
        number += 1
        record = RunRecord(
            number=number, token=token, num_rows=num_rows, host=host, started=now(), config=config
        )
        try:
            storage.create(record.key, to_json(asdict(record)))
        except AlreadyExistsError:
            continue  # another driver was quicker
        return record


def end_run(storage: Storage, record: RunRecord, *, outcome: str, cause: str | None = None) -> RunRecord:
    """Note how the run ended."""
    ended = replace(record, ended=now(), outcome=outcome, cause=cause)
    storage.replace(record.key, to_json(asdict(ended)))
    return ended


def to_json(fields: Mapping[str, object]) -> bytes:
    """A record as it is stored: indented, keys sorted."""
    return (json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse_json(raw: bytes, key: str) -> dict[str, Any]:
    """A stored record. CorruptBuildError names the object."""
    try:
        fields = json.loads(raw)
    except ValueError as exc:
        raise CorruptBuildError(f"{key} is not valid JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise CorruptBuildError(f"{key} is not a JSON object")
    return fields
