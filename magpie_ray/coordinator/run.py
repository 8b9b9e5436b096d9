"""One run of a build, from its job to its result. Knows no Ray.

Invariant: whatever ends a run, committed rows stay and the run's record says how the run ended.
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

# A job that is stopped has a notice of half a minute for all of its end.
_END_SECONDS = 5.0
# The cluster stays reserved while the report is made.
_SURVEY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildResult:
    """A build that is complete, or left alone.

    new_rows, tokens, attempts, rejected, engine_use: of this run. seconds: since its first engine was up.
    report: its URL; None where nothing was to be done or the report could not be written. left_alone: why
    the existing build was not touched (if_exists: skip), else "".
    """

    url: str
    num_rows: int
    new_rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    attempts: int = 0
    rejected: int = 0
    engine_use: EngineStats = field(default_factory=EngineStats)
    report: str | None = None
    left_alone: str = ""


def nothing_to_do(build_spec: BuildSpec, storage: Storage, committed: CommittedBuild) -> BuildResult:
    """All rows are committed. Writes the manifest, report and _SUCCESS if an earlier run could not."""
    num_rows = build_spec.config.num_rows
    if not manifest.is_up_to_date(storage, committed.records):
        write_report(storage, committed.records)
        manifest.finish(storage, committed.build, committed.records, num_rows=num_rows, run=None)
    return BuildResult(url=storage.url, num_rows=num_rows)


def carry_out(
    make_job: Callable[[], Job],
    run: RunRecord,
    storage: Storage,
    record: BuildRecord,
    stop_requested: Callable[[], bool],
    watchers: Sequence[Watcher] = (),
) -> BuildResult:
    """Run the job; then complete the build, and record how the run ended whatever happened."""
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
    tally = Tally.sum(r for r in records if r.run == run.number)
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
    """Write the build's card and report. Returns the report's URL; a failure is only logged as a warning."""
    try:
        storage = storage.retrying_for(READ_SECONDS)
        write_card(storage, records=records)
        return report.write_report(storage, records=records, seconds=_SURVEY_SECONDS)
    except Exception as exc:  # no bug in a report may end a run that has made its rows
        log.warning(
            "the report could not be written: %s. The build is not affected; `magpie-ray report %s` "
            "tries again",
            exc,
            storage.url,
            exc_info=None if isinstance(exc, MagpieError) else exc,
        )
        return None


def _note_end(storage: Storage, run: RunRecord, outcome: str, exc: BaseException) -> None:
    """Record how the run ended. A store that is gone must neither hide the cause nor delay the end."""
    cause = str(exc) if isinstance(exc, MagpieError) else f"{type(exc).__name__}: {exc}"
    try:
        run_records.end_run(storage.retrying_for(_END_SECONDS), run, outcome=outcome, cause=cause)
    except StorageError as error:
        log.warning("how run %d ended could not be recorded: %s", run.number, error)
