"""Where things lie at an output, and how records are written there: keys, versions, JSON."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from magpie_ray.errors import CorruptBuildError

BUILD_KEY = "_magpie/build.json"
RUNS_PREFIX = "_magpie/runs/"
# Version of the layout and of all records of a build.
LAYOUT_VERSION = 1


def now() -> str:
    """The time in UTC, as all records have it: ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def fingerprint(identity: Mapping[str, object]) -> str:
    """SHA-256 (hex) over the canonical JSON of everything that decides what the rows of a build are."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
