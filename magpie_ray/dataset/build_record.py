"""build.json: what a build is.

Invariants: build.json is created exclusively before anything else of the build, and never changes. A build
has one identity: a run with another one is refused, and the error names the keys that differ. The record
holds no secret, as the config comes redacted.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field

import pyarrow as pa
from pydantic import ConfigDict, TypeAdapter

from magpie_ray.config.identity import NEUTRAL, without_neutral
from magpie_ray.config.output_path import LATEST, Tick
from magpie_ray.dataset import layout
from magpie_ray.dataset.columns import NO_COLUMNS, schema_of
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.layout import BUILD_KEY, LAYOUT_VERSION
from magpie_ray.errors import (
    AlreadyExistsError,
    BuildMismatchError,
    BuildNotFoundError,
    BuildReplacedError,
    CorruptBuildError,
    StorageError,
)
from magpie_ray.storage.storage import ObjectNotFoundError, Storage

log = logging.getLogger(__name__)

_SHOWN_CHARACTERS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRecord:
    """The content of build.json.

    identity: everything that decides the rows, by dotted key. config, versions, created: for readers, they
    decide nothing. tick: which build of an output.path with placeholders this is. token: random, so that of
    two drivers that create a build in the same second only one counts as first; "" in earlier versions'.
    kept: the Arrow schema of the columns that rows keep of their inputs, serialised, in base64; "" for none.
    fingerprint: SHA-256 (hex) of identity and grid, which every footer of the build carries; it is computed,
    whatever is passed.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    identity: Mapping[str, object]
    rows_per_partition: int
    chat_format: Mapping[str, object]
    columns: tuple[str, ...]
    compression: str
    config: Mapping[str, object]
    versions: Mapping[str, str]
    created: str = field(default_factory=layout.now)
    tick: Tick | None = None
    token: str = ""
    kept: str = ""
    layout_version: int = LAYOUT_VERSION
    fingerprint: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fingerprint", fingerprint_of(self.identity_and_grid))

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        kept = pa.ipc.read_schema(pa.BufferReader(base64.b64decode(self.kept))) if self.kept else NO_COLUMNS
        return schema_of(self.columns, kept)

    @property
    def job(self) -> str:
        """The command whose rows these are."""
        return str(self.identity.get("job") or self.identity.get("kind") or "generate")

    @property
    def answers(self) -> int:
        """Of a pass, how many answers a row has; 0 where rows are generated whole."""
        return int(str(self.identity.get("n", 1))) if self.job == "answer" else 0

    @property
    def identity_and_grid(self) -> Mapping[str, object]:
        """Everything that a build never changes."""
        return {**self.identity, "output.rows_per_partition": self.rows_per_partition}


_RECORD = TypeAdapter(BuildRecord)


def fingerprint_of(identity: Mapping[str, object]) -> str:
    """SHA-256 (hex) over the canonical JSON of an identity."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_build(storage: Storage) -> BuildRecord | None:
    """build.json, or None where there is no build yet. CorruptBuildError when it can't be understood."""
    try:
        raw = storage.read(BUILD_KEY)
    except ObjectNotFoundError:
        return None
    name = storage.display(BUILD_KEY)
    stored = layout.parse_record(raw, layout.JSON_OBJECT, name)
    if stored.get("layout_version") != LAYOUT_VERSION:
        raise CorruptBuildError(
            f"{name} has layout version {stored.get('layout_version')!r}, this magpie-ray reads "
            f"{LAYOUT_VERSION}: use the version that began the build, or another output.path"
        )
    record = layout.parse_record(raw, _RECORD, name)
    if record.fingerprint != stored.get("fingerprint"):
        raise CorruptBuildError(
            f"{name} was changed by hand: its fingerprint does not match its identity. Restore it, or choose "
            "another output.path"
        )
    return record


def require_build(storage: Storage) -> BuildRecord:
    """The build at the output. BuildNotFoundError where there is none, such as beside a schedule's builds."""
    try:
        record = read_build(storage)
    except StorageError as exc:
        if isinstance(exc.__cause__, NotADirectoryError):
            raise BuildNotFoundError(
                f"{storage.url} is a file, and a build is a folder: name the one that has data/ and _magpie/"
            ) from exc
        raise
    if record is not None:
        return record
    hint = ""
    if storage.exists(layout.latest_key(LATEST)):
        hint = f". It holds the builds of a schedule: name one, or {storage.display(LATEST)}, the newest"
    raise BuildNotFoundError(f"{storage.url} holds no build: there is no {storage.display(BUILD_KEY)}{hint}")


def open_build(storage: Storage, wanted: BuildRecord) -> BuildRecord:
    """Create the build, or join the one at the output. Returns `wanted` itself where it was created.

    BuildMismatchError when the output holds another build.
    """
    try:
        storage.create(BUILD_KEY, layout.to_json(asdict(wanted)))
    except AlreadyExistsError:
        existing = read_build(storage)
        assert existing is not None, "build.json is never deleted"
        check_same_build(existing, wanted, storage)
        return existing
    return wanted


def restore_build(storage: Storage, build: BuildRecord) -> None:
    """Write the build.json of a run that is at work again, if it was removed.

    BuildReplacedError when another build has begun in its place; CorruptBuildError when it is damaged.
    """
    existing = read_build(storage)
    if existing is None:
        log.warning("%s was removed while a run is at work: it is written again", storage.display(BUILD_KEY))
        with suppress(AlreadyExistsError):
            storage.create(BUILD_KEY, layout.to_json(asdict(build)))
        existing = require_build(storage)
    if existing.fingerprint != build.fingerprint:
        raise BuildReplacedError(
            f"{storage.display(BUILD_KEY)} is of another build (fingerprint {existing.fingerprint[:12]}…), "
            "which was begun while a run of this build was at work. That run ends. `magpie-ray verify` names "
            "its files, which do not belong to the other build"
        )


def check_same_build(
    existing: BuildRecord,
    wanted: BuildRecord,
    storage: Storage,
    *,
    neutral: Mapping[str, object] = NEUTRAL,
) -> None:
    """BuildMismatchError naming every key in which the two builds differ, with both values.

    Of two commands' outputs the commands are named instead: they have hardly a key in common. neutral: a key
    that one of them lacks counts as having this value there, as versions before the key did.
    """
    if existing.job != wanted.job:
        raise BuildMismatchError(
            f"{storage.url} holds the output of `magpie-ray {existing.job}`: `{wanted.job}` needs an output "
            "of its own, so choose another one"
        )
    stripped = [without_neutral(one.identity_and_grid, neutral) for one in (existing, wanted)]
    if len({fingerprint_of(identity) for identity in stripped}) == 1:
        return
    known = {key: value for key, value in neutral.items() if any(key in identity for identity in stripped)}
    theirs, ours = (
        {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in identity.items()}
        for identity in ({**known, **identity} for identity in stripped)
    )
    lines = []
    # The config's keys first: the chat format follows from them.
    for key in sorted(ours.keys() | theirs.keys(), key=lambda key: (key.startswith("chat_format."), key)):
        before, after = theirs.get(key, "(not set)"), ours.get(key, "(not set)")
        if before != after:
            same = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
            lines.append(f"  {key}: the build has {_excerpt(before, same)}, now {_excerpt(after, same)}")
    remedy = "set these back, or choose another output.path."
    if not read_data_folder(storage).partitions:
        folder = storage.display(layout.RECORDS_PREFIX.rstrip("/"))
        remedy = f"there are no rows yet, so delete {folder} to start over, or {remedy}"
    raise BuildMismatchError(
        f"{storage.url} holds a build made with other settings:\n"
        + "\n".join(lines)
        + f"\nA build never mixes two configs: {remedy}"
    )


def _excerpt(text: str, same: int) -> str:
    """A value; of a long one the part around its first difference, which follows `same` equal characters."""
    begin = max(0, same - _SHOWN_CHARACTERS // 2) if len(text) > _SHOWN_CHARACTERS else 0
    end = begin + _SHOWN_CHARACTERS
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")
