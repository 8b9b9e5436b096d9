"""The keys output.path and output.build_id, and the placeholders in a path: {date}, {datetime}, {build_id}.

A literal brace is written twice. Invariant: the first placeholder stands behind a literal folder, the parent,
which holds `latest` and the records of all builds of the path.
"""

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict

from magpie_ray.config.fields import must_be_text
from magpie_ray.config.problems import bad_value

_BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
URL_PASSWORD = re.compile(r"^[^/:]+://[^/]*:[^/]*@")

PLACEHOLDERS = ("date", "datetime", "build_id")
LATEST = "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The place that all builds of a path with placeholders share.

    parent: the literal folder before the first placeholder, as a URL. latest: the path below the parent,
    without the parts that change from build to build: `latest` for s3://b/daily/{date}, `en-latest/llama` for
    s3://b/en-{date}/llama.
    """

    parent: str
    latest: str


def problem(path: str) -> str | None:
    """How the braces of a path are wrong, to complete "must be ..."; None when they are right."""
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


def _can_be_written(path: str) -> str:
    if URL_PASSWORD.match(path):
        # The value is not shown, as it holds the password.
        raise bad_value("a URL with a password in it", "without; credentials go to output.storage_options")
    scheme, separator, rest = path.partition("://")
    if separator and (not scheme or not rest.strip("/")):
        raise bad_value(path, "a URL with a scheme and a place, such as s3://bucket/dataset")
    if separator and scheme in ("http", "https"):
        endpoint = "an S3 server's address goes to output.storage_options.endpoint_url"
        raise bad_value(path, f"a place that can be written, such as s3://bucket/dataset; {endpoint}")
    if separator and "?" in rest:
        shown = path.partition("?")[0] + "?..."
        raise bad_value(shown, "without a query; options go to output.storage_options")
    if (wrong := problem(path)) is not None:
        raise bad_value(path, wrong)
    return path


def _names_a_build(name: str | None) -> str | None:
    if name is not None and (not _BUILD_ID.fullmatch(name) or name == LATEST):
        rule = "1 to 63 letters, digits, dots, dashes and underscores, the first one a letter or digit"
        raise bad_value(name, f"{rule}, and not {LATEST}")
    return name


OutputPath = Annotated[
    str, must_be_text("a local path or a URL such as s3://bucket/dataset"), AfterValidator(_can_be_written)
]
BuildId = Annotated[str | None, must_be_text(null=True), AfterValidator(_names_a_build)]


def has_placeholders(path: str) -> bool:
    return any(name is not None for _, name in _parts(path))


def fill(path: str, values: Mapping[str, str]) -> str:
    """The path with its placeholders replaced and its doubled braces single."""
    return "".join(text + (values[name] if name is not None else "") for text, name in _parts(path))


def values_at(moment: datetime, build_id: str) -> dict[str, str]:
    """The values of all placeholders for one build. `moment` is in UTC."""
    return {"date": f"{moment:%Y-%m-%d}", "datetime": f"{moment:%Y%m%dT%H%M%SZ}", "build_id": build_id}


def place_of(path: str) -> Place:
    """The place that all builds of a path with placeholders share."""
    parts = list(_parts(path))
    parent, slash, stem = parts[0][0].rpartition("/")
    # The rest of the path, with a character that no path has in place of each further placeholder.
    rest = "".join(text + ("\0" if name is not None else "") for text, name in parts[1:])
    first, *others = rest.split("/")
    names = [stem + LATEST + first.rpartition("\0")[2], *(name for name in others if "\0" not in name)]
    return Place(parent=parent or slash or ".", latest="/".join(filter(None, names)))


def _parts(path: str) -> Iterator[tuple[str, str | None]]:
    """Literal texts, each with the name of the placeholder behind it. ValueError for malformed braces."""
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
    """One build of a path with placeholders. time: of the placeholders, UTC in ISO 8601, whole seconds."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # where a stored one is read

    template: str
    time: str
    build_id: str

    @property
    def path(self) -> str:
        """The path of this build."""
        return fill(self.template, values_at(datetime.fromisoformat(self.time), self.build_id))

    @property
    def place(self) -> Place:
        return place_of(self.template)

    @property
    def is_unique(self) -> bool:
        """Whether each run of the config makes a build of its own, rather than one build a day."""
        return bool({name for _, name in _parts(self.template)} - {None, "date"})

    @property
    def order(self) -> str:
        """A text that sorts the builds of a place by time."""
        return f"{values_at(datetime.fromisoformat(self.time), '')['datetime']}-{self.build_id}"
