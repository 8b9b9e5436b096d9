"""One run of a build, from its job to its last words. Knows no Ray.

What always holds: whatever ends a run, what is committed stays and its record says how it ended.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.watcher import Watcher
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import (
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
    StorageError,
)
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.target import CommittedBuild
from magpie_ray.publish.card import write_card
from magpie_ray.publish.report import report
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import PartitionRecord

log = logging.getLogger(__name__)

# Whoever stops a job has given it a notice of half a minute.
_LAST_WORDS_SECONDS = 5.0
# The cluster is there all the while.
_SURVEY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """A complete build. Rows, tokens and attempts of this run; `seconds` from the first engine's start on.

    report: where it is; None where there was nothing to do, or where it could not be written.
    left_alone: why nothing was done about a build that is there (if_exists: skip); "" where it was not so.
    """

    url: str
    num_rows: int
    new_rows: int
    tokens: int
    seconds: float
    attempts: int
    rejected: int
    engine_use: EngineStats = field(default_factory=EngineStats)
    report: str | None = None
    left_alone: str = ""


def left_alone(storage: Storage, num_rows: int, reason: str) -> BuildResult:
    """A build that is there, and not ours to work on."""
    return BuildResult(
        url=storage.url,
        num_rows=num_rows,
        new_rows=0,
        tokens=0,
        seconds=0.0,
        attempts=0,
        rejected=0,
        left_alone=reason,
    )


def nothing_to_do(build_spec: BuildSpec, storage: Storage, committed: CommittedBuild) -> BuildResult:
    """Everything is committed: see to it that the last words are written too."""
    num_rows = build_spec.config.num_rows
    if not manifest.is_up_to_date(storage, committed.records):
        write_report(storage, committed.records)
        manifest.finish(storage, committed.build, committed.records, num_rows=num_rows, run=None)
    return BuildResult(
        url=storage.url, num_rows=num_rows, new_rows=0, tokens=0, seconds=0.0, attempts=0, rejected=0
    )


def carry_out(
    make_job: Callable[[], Job],
    run: RunRecord,
    storage: Storage,
    record: BuildRecord,
    stop_requested: Callable[[], bool],
    watchers: Sequence[Watcher] = (),
) -> BuildResult:
    """Work, then write the last words of the run whatever happened."""
    num_rows = run.num_rows
    try:
        job = make_job()
        job.work(watchers, stop_requested)
        records = manifest.read_committed(storage, record)
        if left := manifest.pending(num_rows, record, records):
            raise GenerationFailedError(
                f"{storage.url} still lacks {', '.join(map(str, left[:3]))} though all partitions were "
                "reported as committed: were files removed? Run the same command again"
            )
        last = job.snapshot()
        run_records.end_run(storage, run, outcome="done", engines=last.engines)
        where = write_report(storage, records)
        manifest.finish(storage, record, records, num_rows=num_rows, run=run)
        checks.remove_leftovers(storage)
    except (InterruptedJobError, KeyboardInterrupt, SystemExit) as exc:
        _note_end(storage, run, "interrupted", exc)
        raise
    except BaseException as exc:
        _note_end(storage, run, "failed", exc)
        if isinstance(exc, MagpieError) and not isinstance(exc, StorageError):
            write_report(storage)
        raise
    tally = Tally.sum(Tally.of_record(r) for r in records if r.run == run.number)
    return BuildResult(
        url=storage.url,
        num_rows=num_rows,
        new_rows=tally.rows,
        tokens=tally.tokens,
        seconds=last.seconds,
        attempts=tally.attempts,
        rejected=tally.attempts - tally.rows,
        engine_use=last.engines,
        report=where,
    )


def write_report(storage: Storage, records: Sequence[PartitionRecord] | None = None) -> str | None:
    """The card and the page of the build; returns where the page is. A failure is a warning and no more."""
    try:
        patient = storage.retrying_for(READ_SECONDS)
        write_card(patient, records=records)
        return report.write_report(patient, records=records, seconds=_SURVEY_SECONDS)
    except Exception as exc:  # rows are worth more than a page about them, whatever is wrong with it
        log.warning(
            "the report could not be written: %s. The build is none the worse for it; `magpie-ray report %s` "
            "tries again",
            exc,
            storage.url,
            exc_info=None if isinstance(exc, MagpieError) else exc,
        )
        return None


def _note_end(storage: Storage, run: RunRecord, outcome: str, exc: BaseException) -> None:
    """Record how the run ended. A store that is gone must neither hide why it did nor hold up the end."""
    cause = str(exc) if isinstance(exc, MagpieError) else f"{type(exc).__name__}: {exc}"
    try:
        run_records.end_run(storage.retrying_for(_LAST_WORDS_SECONDS), run, outcome=outcome, cause=cause)
    except StorageError as error:
        log.warning("how run %d ended could not be recorded: %s", run.number, error)
