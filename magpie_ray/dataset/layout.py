"""Where everything lies at an output, and how its records are written and read.

    README.md                                 the dataset card
    data/part-NNNNNNNNNNNN.parquet            rows, named by their first one (types.Partition.key)
    _SUCCESS                                  empty, written last of all
    _magpie/build.json                        what the build is
    _magpie/manifest.json                     what is committed
    _magpie/runs/NNNNNN.json                  one run; beside it .heartbeat.json and .actors.json
    _magpie/rejects/part-NNNNNNNNNNNN.jsonl   samples of rejected messages
    _magpie/inputs/files.json                 the files that the inputs came from
    _magpie/inputs/blocks.json                where the inputs of rows lie in the parts beside it
    _magpie/inputs/NNNNNNNNNNNN-SHA.blocks    inputs from number N on, for workers (inputs.copy)
    _magpie/source.parquet                    where the rows of a pass's source lie
    _magpie/selection.json                    what the query of a selection took and removed
    _magpie/report.html                       the report

Beside the builds of a schedule, for each place that their paths have in common (such as "latest"):

    PLACE.json                                where the newest complete build lies
    _magpie/finished/PLACE/*.json             every build that was ever complete, in order
    _magpie/builds/PLACE/BUILD_ID.json        what a name stands for

Invariants: no other module spells these keys, except that storage names its own temporary objects. Names of
stored fields never change, so that records of earlier versions stay readable. A record of a build, a run, a
tick, an actor history or a partition with an unknown field or a value of another type raises
CorruptBuildError.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import DATA_PREFIX, Partition

T = TypeVar("T")

# Version of the layout and of all records of a build.
LAYOUT_VERSION = 1

CARD_KEY = "README.md"
DATA_FILES = f"{DATA_PREFIX}*.parquet"
# Partition.key
PARTITION_KEY = re.compile(re.escape(DATA_PREFIX) + r"part-[0-9]{12}\.parquet")
SUCCESS_KEY = "_SUCCESS"
RECORDS_PREFIX = "_magpie/"
BUILD_KEY = f"{RECORDS_PREFIX}build.json"
MANIFEST_KEY = f"{RECORDS_PREFIX}manifest.json"
REPORT_KEY = f"{RECORDS_PREFIX}report.html"
RUNS_PREFIX = f"{RECORDS_PREFIX}runs/"
REJECTS_PREFIX = f"{RECORDS_PREFIX}rejects/"
SELECTION_KEY = f"{RECORDS_PREFIX}selection.json"
SOURCE_KEY = f"{RECORDS_PREFIX}source.parquet"
INPUTS_PREFIX = f"{RECORDS_PREFIX}inputs/"
INPUT_FILES_KEY = f"{INPUTS_PREFIX}files.json"
INPUT_BLOCKS_KEY = f"{INPUTS_PREFIX}blocks.json"

# Samples of rejects: of rejects_key.
REJECTS_KEY = re.compile(re.escape(REJECTS_PREFIX) + r"part-[0-9]{12}\.jsonl")

# Any JSON object.
JSON_OBJECT = TypeAdapter(dict[str, Any])


def run_key(run: int) -> str:
    return f"{RUNS_PREFIX}{run:06d}.json"


def heartbeat_key(run: int) -> str:
    return f"{RUNS_PREFIX}{run:06d}.heartbeat.json"


def actors_key(run: int) -> str:
    return f"{RUNS_PREFIX}{run:06d}.actors.json"


def rejects_key(partition: Partition) -> str:
    return f"{REJECTS_PREFIX}part-{partition.start:012d}.jsonl"


def input_part_key(first: int, sha256: str) -> str:
    return f"{INPUTS_PREFIX}{first:012d}-{sha256[:16]}.blocks"


def latest_key(place: str) -> str:
    return f"{place}.json"


def finished_prefix(place: str) -> str:
    return f"{RECORDS_PREFIX}finished/{place}/"


def build_id_key(place: str, build_id: str) -> str:
    return f"{RECORDS_PREFIX}builds/{place}/{build_id}.json"


def now() -> str:
    """The time in UTC as all records have it: ISO 8601, whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def to_json(fields: Mapping[str, object]) -> bytes:
    """A record as it is stored: indented, in the order of its keys, which counts in a config of labels."""
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def read_record(storage: Storage, key: str, record: TypeAdapter[T]) -> T | None:
    """The record under a key, None where there is none. CorruptBuildError names a damaged or foreign one."""
    try:
        raw = storage.read(key)
    except ObjectNotFoundError:
        return None
    return parse_record(raw, record, storage.display(key))


def parse_record(raw: bytes, record: TypeAdapter[T], name: str) -> T:
    """A stored record. CorruptBuildError says that the object `name` is none, and why."""
    try:
        return record.validate_json(raw, strict=True)
    except ValidationError as exc:
        problem = exc.errors(include_url=False, include_input=False)[0]
        field = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
        raise CorruptBuildError(f"{name} is damaged or foreign ({field}{problem['msg']})") from exc
