"""The records of a build under _magpie/: what it is (build.json) and who worked on it (runs/).

What always holds: build.json is created exclusively before anything else and never changes; a build has one
identity, and whoever comes with another one is refused with the keys that differ; a run number is taken by
exclusive creation, so no two runs of a build share one. No secret is in a record: the config comes redacted.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from magpie_ray.config.output_path import LATEST
from magpie_ray.dataset import layout
from magpie_ray.dataset.layout import BUILD_KEY, LAYOUT_VERSION, now, parse_json, to_json
from magpie_ray.errors import AlreadyExistsError, BuildMismatchError, CorruptBuildError, PreflightError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import DATA_PREFIX

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
        return layout.fingerprint({**self.identity, "output.rows_per_partition": self.rows_per_partition})


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
    if not storage.list_objects(DATA_PREFIX):
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
