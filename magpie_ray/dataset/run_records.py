"""The runs of a build: one record each, and the heartbeat beside it."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from magpie_ray import draws
from magpie_ray.counters import EngineStats
from magpie_ray.dataset.layout import RUNS_PREFIX, now, parse_json, to_json
from magpie_ray.errors import (
    AlreadyExistsError,
    CorruptBuildError,
    PreflightError,
)
from magpie_ray.storage.storage import ObjectNotFoundError, Storage

_RUN_KEY = re.compile(re.escape(RUNS_PREFIX) + r"(\d{6})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One execution of `generate`. outcome: running, done, failed or interrupted; `cause` when it failed.

    engines: fields of EngineStats, of all engines of the run.

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
        return _run_key(self.number)


def _run_key(number: int) -> str:
    return f"{RUNS_PREFIX}{number:06d}.json"


def read_runs(storage: Storage) -> list[RunRecord]:
    """All runs so far, in order of their numbers. CorruptBuildError names a record that is not one."""
    return [read_run(storage, number) for number in _taken_runs(storage)]


def read_run(storage: Storage, number: int) -> RunRecord:
    """One run. CorruptBuildError names a record that is not one."""
    key = _run_key(number)
    try:
        record = RunRecord(**parse_json(storage.read(key), key))
    except TypeError as exc:
        raise CorruptBuildError(f"{storage.display(key)} is incomplete or foreign: {exc}") from exc
    if record.number != number or type(record.num_rows) is not int:
        raise CorruptBuildError(f"{storage.display(key)} was changed by hand or renamed")
    return record


def is_second(storage: Storage, run: RunRecord) -> bool:
    """Whether an odd number of earlier runs have not ended yet, or died without saying so."""
    earlier = [other for other in read_runs(storage) if other.number < run.number]
    return sum(other.outcome == "running" for other in earlier) % 2 == 1


def rows_wanted(runs: Sequence[RunRecord]) -> int:
    """How many rows the build is to have: what its last run was asked for; 0 before the first one."""
    return runs[-1].num_rows if runs else 0


def _taken_runs(storage: Storage) -> list[int]:
    """Numbers of the runs there are, in order. Other files there are none of ours."""
    matches = [_RUN_KEY.fullmatch(found.key) for found in storage.list_objects(RUNS_PREFIX)]
    return sorted(int(match[1]) for match in matches if match)


def start_run(storage: Storage, *, num_rows: int, host: str, config: Mapping[str, object]) -> RunRecord:
    """Take the next free run number by exclusive creation. PreflightError when the build has used them up."""
    number = max(_taken_runs(storage), default=0)
    token = uuid.uuid4().hex
    while True:
        number += 1
        if number >= draws.MAX_RUNS:
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
    engines: EngineStats | None = None,
) -> RunRecord:
    """Note how the run ended, and how well its engines were used."""
    recorded = engines.recorded() if engines else None
    ended = replace(record, ended=now(), outcome=outcome, cause=cause, engines=recorded)
    storage.replace(record.key, to_json(asdict(ended)))
    return ended


BEAT_SECONDS = 30.0
# A driver that has not been heard of for so long is thought to be gone: a slow store makes it miss a few.
GONE_SECONDS = 10 * BEAT_SECONDS


def heartbeat_key(run: int) -> str:
    return f"{RUNS_PREFIX}{run:06d}.heartbeat.json"


def read_heartbeat(storage: Storage, run: int) -> Mapping[str, object] | None:
    """A run's last heartbeat; None before the first one. CorruptBuildError when the object is none.

    Earlier versions wrote none of the run's `token` into it.
    """
    key = heartbeat_key(run)
    try:
        return parse_json(storage.read(key), key)
    except ObjectNotFoundError:
        return None
