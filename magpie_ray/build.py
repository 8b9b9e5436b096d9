"""The records of a build under _magpie/: what it is (build.json) and who worked on it (runs/).

What always holds: build.json is created exclusively before anything else and never changes; a build has one
identity, and whoever comes with another one is refused with the keys that differ; a run number is taken by
exclusive creation, so no two runs of a build share one. No secret is in a record: the config comes redacted.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from magpie_ray import plan
from magpie_ray.errors import AlreadyExistsError, BuildMismatchError, CorruptBuildError, PreflightError
from magpie_ray.metrics import EngineUse
from magpie_ray.output_path import LATEST
from magpie_ray.storage import ObjectNotFoundError, Storage
from magpie_ray.types import DATA_PREFIX

BUILD_KEY = "_magpie/build.json"
RUNS_PREFIX = "_magpie/runs/"
# Version of the layout and of all records of a build.
LAYOUT_VERSION = 1

_RUN_KEY = re.compile(re.escape(RUNS_PREFIX) + r"(\d{6})\.json")
_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
    """What build.json holds.

    identity: everything that decides the rows, by dotted key; the fingerprint is its hash. `config`,
    `versions` and `created` are recorded for readers and decide nothing. tick: an output_path.Tick, where
    output.path had placeholders.
    """

    identity: Mapping[str, object]
    rows_per_partition: int
    chat_format: Mapping[str, object]
    columns: tuple[str, ...]
    compression: str
    config: Mapping[str, object]
    versions: Mapping[str, str]
    created: str = field(default_factory=lambda: now())
    tick: Mapping[str, str] | None = None
    layout_version: int = LAYOUT_VERSION

    @property
    def fingerprint(self) -> str:
        """Identity and grid, hashed: what every footer of the build carries."""
        return plan.fingerprint({**self.identity, "output.rows_per_partition": self.rows_per_partition})


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One execution of `generate`. outcome: running, done, failed or interrupted; `cause` when it failed.

    engines: an EngineUse, of all engines of the run.

    token: random, so that two drivers that start in the same second never write equal records.
    """

    number: int
    token: str
    num_rows: int
    host: str
    started: str
    config: Mapping[str, object] = field(default_factory=dict)
    ended: str | None = None
    engines: Mapping[str, int] | None = None
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
        fingerprint = record.fingerprint
    except (KeyError, TypeError) as exc:
        raise CorruptBuildError(f"{storage.display(BUILD_KEY)} is incomplete or foreign: {exc}") from exc
    if fingerprint != found:
        raise CorruptBuildError(
            f"{storage.display(BUILD_KEY)} was changed by hand: its fingerprint does not match its identity. "
            "Restore it, or choose another output.path"
        )
    return record


def open_build(storage: Storage, wanted: BuildRecord) -> BuildRecord:
    """Create the build, or join the one that is there. BuildMismatchError when that is another one.

    `wanted` itself where it was created.
    """
    fields = asdict(wanted) | {"fingerprint": wanted.fingerprint}
    try:
        storage.create(BUILD_KEY, to_json(fields))
    except AlreadyExistsError:
        found = read_build(storage)
        assert found is not None, "build.json is never deleted"
        check_same_build(found, wanted, storage)
        return found
    return wanted


def require_build(storage: Storage) -> BuildRecord:
    """The build at the output. PreflightError when there is none, as where builds lie beside each other."""
    record = read_build(storage)
    if record is not None:
        return record
    where = ""
    if storage.exists(f"{LATEST}.json"):
        where = f". It holds the builds of a schedule: name one, or {storage.display(LATEST)}, the newest"
    raise PreflightError(f"{storage.url} holds no build: there is no {storage.display(BUILD_KEY)}{where}")


def check_same_build(found: BuildRecord, wanted: BuildRecord, storage: Storage) -> None:
    """BuildMismatchError naming every key in which the two differ, with both values."""
    if found.fingerprint == wanted.fingerprint:
        return
    ours, theirs = _values(wanted), _values(found)
    lines = []
    # The config's keys first: the chat format follows from them.
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key.startswith("chat_format."), key)):
        has, asked = theirs.get(key, "(not set)"), ours.get(key, "(not set)")
        if has != asked:
            same = next((i for i, (a, b) in enumerate(zip(has, asked, strict=False)) if a != b), 0)
            lines.append(f"  {key}: the build has {_shown(has, same)}, now {_shown(asked, same)}")
    remedy = "set these back, or choose another output.path."
    if not storage.list(DATA_PREFIX):
        remedy = f"there are no rows yet, so delete {storage.display('_magpie')} to begin anew, or {remedy}"
    raise BuildMismatchError(
        f"{storage.url} holds a build made with other settings:\n"
        + "\n".join(lines)
        + f"\nA build never mixes two configs: {remedy}"
    )


def _values(record: BuildRecord) -> dict[str, str]:
    """Identity and grid as JSON texts: what the fingerprint hashes."""
    identity = {**record.identity, "output.rows_per_partition": record.rows_per_partition}
    return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in identity.items()}


def _shown(text: str, same: int) -> str:
    """A value, or of a long one the part around its first difference, which is after `same` characters."""
    begin = max(0, same - _SHOWN_CHARACTERS // 2) if len(text) > _SHOWN_CHARACTERS else 0
    end = begin + _SHOWN_CHARACTERS
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")


def read_runs(storage: Storage) -> list[RunRecord]:
    """All runs so far, in order of their numbers. CorruptBuildError names a record that is not one."""
    records = []
    for number, key in _taken_runs(storage):
        try:
            record = RunRecord(**parse_json(storage.read(key), key))
        except TypeError as exc:
            raise CorruptBuildError(f"{storage.display(key)} is incomplete or foreign: {exc}") from exc
        if record.number != number or type(record.num_rows) is not int:
            raise CorruptBuildError(f"{storage.display(key)} was changed by hand or renamed")
        records.append(record)
    return records


def is_second(storage: Storage, run: RunRecord) -> bool:
    """Whether an odd number of earlier runs have not ended yet, or died without saying so."""
    earlier = [other for other in read_runs(storage) if other.number < run.number]
    return sum(other.outcome == "running" for other in earlier) % 2 == 1


def rows_wanted(runs: Sequence[RunRecord]) -> int:
    """How many rows the build is to have: what its last run was asked for; 0 before the first one."""
    return runs[-1].num_rows if runs else 0


def _taken_runs(storage: Storage) -> list[tuple[int, str]]:
    """Numbers and keys of the runs there are, in order. Other files there are none of ours."""
    matches = [(_RUN_KEY.fullmatch(found.key), found.key) for found in storage.list(RUNS_PREFIX)]
    return sorted((int(match[1]), key) for match, key in matches if match)


def start_run(storage: Storage, *, num_rows: int, host: str, config: Mapping[str, object]) -> RunRecord:
    """Take the next free run number by exclusive creation. PreflightError when the build has used them up."""
    number = max((number for number, _ in _taken_runs(storage)), default=0)
    token = uuid.uuid4().hex
    while True:
        number += 1
        if number >= plan.MAX_RUNS:
            raise PreflightError(
                f"{storage.url} has had {number - 1} runs, and engine seeds would repeat from here on: "
                "finish the build under another output.path"
            )
        record = RunRecord(
            number=number, token=token, num_rows=num_rows, host=host, started=now(), config=config
        )
        try:
            storage.create(record.key, to_json(asdict(record)))
        except AlreadyExistsError:
            continue  # another driver was quicker
        return record


def end_run(
    storage: Storage,
    record: RunRecord,
    *,
    outcome: str,
    cause: str | None = None,
    engines: EngineUse | None = None,
) -> RunRecord:
    """Note how the run ended, and how well its engines were used."""
    used = asdict(engines) if engines else None
    ended = replace(record, ended=now(), outcome=outcome, cause=cause, engines=used)
    storage.replace(record.key, to_json(asdict(ended)))
    return ended


def to_json(fields: Mapping[str, object]) -> bytes:
    """A record as it is stored: indented, keys sorted."""
    return (json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def parse_json(raw: bytes, key: str) -> dict[str, Any]:
    """A stored record. CorruptBuildError names the object."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise CorruptBuildError(f"{key} is not valid JSON: {exc}") from exc
    if not isinstance(fields, dict):
        raise CorruptBuildError(f"{key} is not a JSON object")
    return fields
