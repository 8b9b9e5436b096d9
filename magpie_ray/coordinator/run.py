"""One run of a build, from its job to its result. Knows no Ray.

Invariant: whatever ends a run, committed rows stay and the run's record says how the run ended.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from magpie_ray.coordinator.completeness import read_all_committed
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.watcher import Watcher
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset import completion, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord, restore_build
from magpie_ray.dataset.layout import DATA_FILES
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import (
    BuildReplacedError,
    ClusterLostError,
    InterruptedJobError,
    MagpieError,
    PreflightError,
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

_END_SECONDS = 5.0
# For all that a run that failed still writes: its record and a report.
_FAILED_SECONDS = 60.0
# The cluster stays reserved while the report is made.
_SURVEY_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class BuildResult:
    """A build that is complete, or left alone.

    job: the command. new_rows, tokens, attempts, rejected, engine_use: of this run. seconds: since its first
    engine was up; wall_seconds: of the whole call. report: its URL; None where nothing was to be done or the
    report could not be written. advice: what to look at in the rows. left_alone: why the existing build was
    not touched (if_exists: skip), else "".
    """

    url: str
    num_rows: int
    job: str = "generate"
    new_rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    wall_seconds: float = 0.0
    attempts: int = 0
    rejected: int = 0
    engine_use: EngineStats = field(default_factory=EngineStats)
    report: str | None = None
    advice: tuple[str, ...] = ()
    left_alone: str = ""

    def __repr__(self) -> str:
        state = f"left alone: {self.left_alone}" if self.left_alone else f"{self.new_rows:,} new"
        return f"BuildResult({self.num_rows:,} rows in {self.path}, {state})"

    @property
    def path(self) -> str:
        """The build's output: a folder, or an fsspec URL."""
        return self.url

    def dataset(self, **options: Any) -> Any:
        """The rows as a `datasets.Dataset`; options go to `datasets.load_dataset`, such as streaming=True."""
        try:
            from datasets import load_dataset  # type: ignore[import-untyped]
        except ImportError as exc:
            raise PreflightError("datasets is not installed here: `pip install datasets`") from exc
        files = f"{self.path}/{DATA_FILES}"
        return load_dataset("parquet", data_files=files, **{"split": "train", **options})


def nothing_to_do(build_spec: BuildSpec, storage: Storage, committed: CommittedBuild) -> BuildResult:
    """All rows are committed. Writes the manifest, report and _SUCCESS if an earlier run could not."""
    num_rows = build_spec.config.num_rows
    if not manifest.is_up_to_date(storage, committed.records):
        write_report(storage, committed.records)
        completion.finish(storage, committed.build, committed.records, num_rows=num_rows, run=None)
    return BuildResult(url=storage.url, job=committed.build.job, num_rows=num_rows)


def carry_out(
    make_job: Callable[[], Job],
    run: RunRecord,
    storage: Storage,
    record: BuildRecord,
    stop_requested: Callable[[], bool],
    watchers: Sequence[Watcher] = (),
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> BuildResult:
    """Run the job; then complete the build, and record how the run ended whatever happened."""
    num_rows, ledger = run.num_rows, None
    try:
        # After the run's record is there: a smaller run that ends now sees one of the two.
        manifest.mark_growing(storage)
        job = make_job()
        job.work(watchers, stop_requested)
        for watcher in watchers:
            watcher.note_last()
        ledger = job.ledger
        records = read_all_committed(
            storage, record, ledger, num_rows=num_rows, stop_requested=stop_requested, sleep=sleep
        )
        restore_build(storage, record)
        last = job.snapshot()
        run_records.end_run(storage, run, outcome="done", engines=last.engines)
        written = write_report(storage, records)
        final = completion.finish(storage, record, records, num_rows=num_rows, run=run)
        if len(final) > len(records):  # another driver has added rows since
            written = write_report(storage, final)
        checks.remove_leftovers(storage)
    except (InterruptedJobError, KeyboardInterrupt, SystemExit) as exc:
        _note_end(storage, record, run, ledger, "interrupted", exc)
        raise
    except BuildReplacedError:  # what lies there is not ours to write to
        raise
    except BaseException as exc:
        if isinstance(exc, StorageError) and stop_requested():  # no time was left
            _note_end(storage, record, run, ledger, "interrupted", exc)
            raise
        storage.give_up_after(_FAILED_SECONDS)
        _note_end(storage, record, run, ledger, "failed", exc)
        # Ray ends a process whose cluster is lost soon, and the cause is to be told before that.
        if isinstance(exc, MagpieError) and not isinstance(exc, (StorageError, ClusterLostError)):
            write_report(storage)
        raise
    tally = Tally.sum(r for r in records if r.run == run.number)
    return BuildResult(
        url=storage.url,
        job=record.job,
        num_rows=num_rows,
        new_rows=tally.rows,
        tokens=tally.tokens,
        seconds=last.seconds,
        attempts=tally.attempts,
        rejected=tally.rejections,
        engine_use=last.engines,
        report=written.location if written else None,
        advice=tuple(written.advice) if written else (),
    )


def write_report(storage: Storage, records: Sequence[PartitionRecord] | None = None) -> report.Report | None:
    """Write the build's card and report. A failure is only logged as a warning; then there is no report."""
    log.info("writing the report")
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


def _note_end(
    storage: Storage,
    build: BuildRecord,
    run: RunRecord,
    ledger: Ledger | None,
    outcome: str,
    exc: BaseException,
) -> None:
    """Record how the run ended. A store that is gone must neither hide the cause nor delay the end.

    ledger: of a job that has done its work, and left the manifest to what has failed since. Only its ledger
    knows the hashes of the last files.
    """
    cause = str(exc) if isinstance(exc, MagpieError) else f"{type(exc).__name__}: {exc}"
    storage = storage.retrying_for(_END_SECONDS)
    try:
        run_records.end_run(storage, run, outcome=outcome, cause=cause)
        if ledger:
            checkpoints = manifest.Checkpoints(storage, build, num_rows=run.num_rows)
            checkpoints.write(ledger.records.values())
    except StorageError as error:
        log.warning("how run %d ended could not be recorded: %s", run.number, error)
