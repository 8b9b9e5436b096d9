"""The runs of a build: one record each, and the heartbeat beside it.

Invariants: a run number is taken by exclusive creation, so that no two runs of a build share one. A driver
writes over its own record only. The record holds no secret, as the config comes redacted.
"""

import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

from pydantic import ConfigDict, TypeAdapter

from magpie_ray import draws
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import layout
from magpie_ray.dataset.layout import RUNS_PREFIX
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, PreflightError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import PartitionRecord

log = logging.getLogger(__name__)

BEAT_SECONDS = 30.0
# A driver that is silent for longer is presumed dead. A slow store makes it miss a few beats.
GONE_SECONDS = 10 * BEAT_SECONDS

_RUN_KEY = re.compile(re.escape(RUNS_PREFIX) + r"(\d{6})\.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One execution of `generate`. outcome: running, done, failed or interrupted; cause: of a failure.

    token: random, so that two drivers that start in the same second never write equal records. engines:
    fields of EngineStats, of all engines of the run together.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

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
        return layout.run_key(self.number)


_RECORD = TypeAdapter(RunRecord)


def read_runs(storage: Storage) -> list[RunRecord]:
    """All runs so far, in order of their numbers, without those whose record is damaged; these are logged."""
    runs = list[RunRecord]()
    for result in read_each_run(storage):
        if isinstance(result, RunRecord):
            runs.append(result)
        else:
            log.warning("%s; the run is left out", result)
    return runs


def read_each_run(storage: Storage) -> Iterator[RunRecord | str]:
    """All runs so far, in order of their numbers; in place of a damaged record what is wrong with it."""
    for number in _taken_numbers(storage):
        try:
            yield read_run(storage, number)
        except (CorruptBuildError, ObjectNotFoundError) as exc:
            yield str(exc)


def read_run(storage: Storage, number: int) -> RunRecord:
    """One run. CorruptBuildError names a damaged record."""
    key = layout.run_key(number)
    record = layout.parse_record(storage.read(key), _RECORD, storage.display(key))
    if record.number != number:
        raise CorruptBuildError(
            f"{storage.display(key)} was renamed: it is the record of run {record.number}"
        )
    return record


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """A run. beat: its last heartbeat, if any. quiet_seconds: since that heartbeat, or the run's record."""

    record: RunRecord
    quiet_seconds: float
    beat: Mapping[str, object] | None = None

    @property
    def alive(self) -> bool:
        """Whether a driver is at work on the run, as far as its heartbeat tells."""
        return self.record.outcome == "running" and self.quiet_seconds < GONE_SECONDS

    @property
    def outcome(self) -> str:
        """How the run ended; running while it is at work, lost when its driver is gone without a record."""
        is_lost = self.record.outcome == "running" and not self.alive
        return "lost" if is_lost else self.record.outcome


def read_run_statuses(storage: Storage) -> Iterator[RunStatus | str]:
    """All runs so far, in order of their numbers; in place of a damaged record what is wrong with it."""
    now = storage.now()
    written = {item.key: item.modified for item in storage.list_objects(RUNS_PREFIX)}
    for record in read_each_run(storage):
        if isinstance(record, str):
            yield record
            continue
        beat = None
        with suppress(CorruptBuildError):  # the next heartbeat replaces it
            if record.outcome == "running":
                beat = read_heartbeat(storage, record.number)
        times = [written.get(key) for key in (record.key, layout.heartbeat_key(record.number))]
        last = max((at for at in times if at is not None), default=None)
        if last is None:  # the store has no times, so that the driver's own clock is the only source
            last = _seconds(beat.get("written") if beat else None) or _seconds(record.started) or now
        yield RunStatus(record=record, quiet_seconds=max(0.0, now - last), beat=beat)


def _seconds(time: object) -> float | None:
    """A time as records have it, in seconds since 1970."""
    with suppress(ValueError):
        return datetime.fromisoformat(str(time)).timestamp()
    return None


def is_second(storage: Storage, run: RunRecord) -> bool:
    """Whether an odd number of earlier runs have no recorded end: they are at work, or died."""
    earlier = [other for other in read_runs(storage) if other.number < run.number]
    return sum(other.outcome == "running" for other in earlier) % 2 == 1


def rows_wanted(runs: Sequence[RunRecord], records: Iterable[PartitionRecord]) -> int:
    """How many rows the build is to have: num_rows of its last run, or the rows up to its last partition.

    The latter may be more when two runs work at once.
    """
    return max([runs[-1].num_rows if runs else 0, *(record.stop for record in records)])


def _taken_numbers(storage: Storage) -> list[int]:
    """The run numbers in use, in order."""
    matches = [_RUN_KEY.fullmatch(item.key) for item in storage.list_objects(RUNS_PREFIX)]
    return sorted(int(match[1]) for match in matches if match)


def start_run(storage: Storage, *, num_rows: int, host: str, config: Mapping[str, object]) -> RunRecord:
    """Take the next free run number by exclusive creation. PreflightError when all numbers are used up."""
    number = max(_taken_numbers(storage), default=0)
    token = uuid.uuid4().hex
    while True:
        number += 1
        if number >= draws.MAX_RUNS:
            raise PreflightError(
                f"{storage.url} has had {number - 1} runs, and engine seeds would repeat from here on: "
                "finish the build under another output.path"
            )
        record = RunRecord(
            number=number, token=token, num_rows=num_rows, host=host, started=layout.now(), config=config
        )
        try:
            storage.create(record.key, layout.to_json(asdict(record)))
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
    """Record how the run ended, and how well its engines were used."""
    used = engines.recorded() if engines else None
    ended = replace(record, ended=layout.now(), outcome=outcome, cause=cause, engines=used)
    if _is_ours(storage, record):
        storage.replace(record.key, layout.to_json(asdict(ended)))
    return ended


def restore_run(storage: Storage, record: RunRecord) -> None:
    """Write the record of a run that is at work again, if it was removed."""
    if storage.exists(record.key):
        return
    log.warning("%s was removed while its run is at work: it is written again", storage.display(record.key))
    with suppress(AlreadyExistsError):
        storage.create(record.key, layout.to_json(asdict(record)))


def _is_ours(storage: Storage, record: RunRecord) -> bool:
    """False where another driver has taken the number: after a removal, or without exclusive creation."""
    try:
        stored = read_run(storage, record.number)
    except (ObjectNotFoundError, CorruptBuildError):
        return True
    if stored.token != record.token:
        log.warning(
            "%s is the record of another driver, on %r: how this run ended is not recorded",
            storage.display(record.key),
            stored.host,
        )
    return stored.token == record.token


def read_heartbeat(storage: Storage, run: int) -> Mapping[str, object] | None:
    """A run's last heartbeat; None before the first one. CorruptBuildError when the object is damaged.

    Earlier versions wrote none of the run's `token` into it.
    """
    return layout.read_record(storage, layout.heartbeat_key(run), layout.JSON_OBJECT)
