"""Placeholders in output.path: what may stand in braces, and the place that such paths have in common.

A literal brace is written twice. What always holds: the first placeholder stands behind a literal folder, the
parent, in which `latest` and the records of the builds are.
"""

import hashlib
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

PLACEHOLDERS = ("date", "datetime", "build_id")
LATEST = "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the builds of a path with placeholders lie together.

    parent: the literal folder before the first placeholder, as a URL. latest: the path, but for what changes
    from build to build, below the parent: of s3://b/daily/{date} it is `latest`, of
    s3://b/en-{date}/llama `en-latest/llama`.
    """

    parent: str
    latest: str


def problem(path: str) -> str | None:
    """What is wrong with the braces of a path: completes "must be ..."; None when nothing is."""
    known = "; ".join(["known are " + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS), "{{ is a brace"])
    try:
        parts = list(_parts(path))
    except ValueError:
        return f"a path whose braces are placeholders: {known}"
    if any(name is not None and name not in PLACEHOLDERS for _, name in parts):
        return f"a path without other placeholders than there are: {known}"
    names = [name for _, name in parts if name is not None]
    _, separator, rest = parts[0][0].partition("://")
    if names and ("/" not in rest if separator else "://" in path):
        return "a path whose scheme and bucket have no placeholders in them"
    return None


def has_placeholders(path: str) -> bool:
    return any(name is not None for _, name in _parts(path))


def fill(path: str, values: Mapping[str, str]) -> str:
    """The path with its placeholders replaced, and doubled braces single."""
    return "".join(text + (values[name] if name is not None else "") for text, name in _parts(path))


def values_at(moment: datetime, build_id: str) -> dict[str, str]:
    """What the placeholders of a build stand for. `moment` in UTC."""
    return {"date": f"{moment:%Y-%m-%d}", "datetime": f"{moment:%Y%m%dT%H%M%SZ}", "build_id": build_id}


def place_of(path: str) -> Place:
    """Where the builds of a path with placeholders lie together."""
    parts = list(_parts(path))
    parent, slash, stem = parts[0][0].rpartition("/")
    # What stands behind the first placeholder, each further one marked by a character no path has.
    rest = "".join(text + ("\0" if name is not None else "") for text, name in parts[1:])
    first, *others = rest.split("/")
    names = [stem + LATEST + first.rpartition("\0")[2], *(name for name in others if "\0" not in name)]
    return Place(parent=parent or slash or ".", latest="/".join(filter(None, names)))


def _parts(path: str) -> Iterator[tuple[str, str | None]]:
    """Literal texts, each with the name of the placeholder behind it. ValueError for braces without sense."""
    text = ""
    for literal, name, spec, conversion in string.Formatter().parse(path):
        text += literal
        if name is None:
            continue
        if spec or conversion:
            raise ValueError(f"{{{name}}} takes no format")
        yield text, name
        text = ""
    yield text, None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """One build of a path with placeholders. time: that they stand for, UTC in ISO 8601, whole seconds."""

    template: str
    time: str
    build_id: str

    @property
    def path(self) -> str:
        """Where this build goes."""
        return fill(self.template, values_at(datetime.fromisoformat(self.time), self.build_id))

    @property
    def place(self) -> Place:
        return place_of(self.template)

    @property
    def is_unique(self) -> bool:
        """Whether the next run of the same config makes a build of its own, not only that of another day."""
        return bool({name for _, name in _parts(self.template)} - {None, "date"})

    @property
    def order(self) -> str:
        """Sorts as the builds of a place do in time."""
        return f"{values_at(datetime.fromisoformat(self.time), '')['datetime']}-{self.build_id}"

    @property
    def seed(self) -> int:
        """A seed of the build's own, 0..2**32-1, the same whenever the same path comes out."""
        return int.from_bytes(hashlib.blake2b(self.path.encode(), digest_size=4).digest(), "little")
