"""The last words of a run, whatever ended it."""

import hashlib
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from magpie_ray.coordinator import run
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.watcher import Watcher
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.layout import BUILD_KEY, REPORT_KEY, SUCCESS_KEY
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import (
    BuildReplacedError,
    ClusterLostError,
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
    StorageError,
)
from magpie_ray.storage.storage import Storage, StoredObject
from tests.support.builds import build_of, commit, complete_build, memory_storage


class EndingJob:
    """A job whose work ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def work(self, *_: object) -> None:
        raise self._error


def carried_out(storage: Storage, error: BaseException) -> None:
    record = build_record.open_build(storage, build_of())
    begun = run_records.start_run(storage, num_rows=8, host="here", config={})
    job: Any = EndingJob(error)
    run.carry_out(lambda: job, begun, storage, record, lambda: False)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (GenerationFailedError("no engine came up"), "failed"),
        (RuntimeError("Ray is gone"), "failed"),
        (InterruptedJobError("stopped"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_however_a_run_ends_its_record_says_so(error: BaseException, outcome: str) -> None:
    storage = memory_storage()
    with pytest.raises(type(error)):
        carried_out(storage, error)
    [record] = run_records.read_runs(storage)
    assert record.outcome == outcome
    assert str(error) in str(record.cause)


@pytest.mark.parametrize(
    ("error", "reported"), [(GenerationFailedError("gave up"), True), (ClusterLostError("gone"), False)]
)
def test_a_run_that_failed_leaves_a_report_unless_ray_ends_the_process_soon(
    error: MagpieError, reported: bool
) -> None:
    storage = memory_storage()
    commit(storage, build_of(), 0, 4)
    with pytest.raises(type(error)):
        carried_out(storage, error)
    assert storage.exists(REPORT_KEY) is reported


class FailingStorage(Storage):
    """Raises the error for every replacement of a key that begins so."""

    def __init__(self, error: Exception, *, prefix: str) -> None:
        super().__init__(memory_storage().url)
        self._error, self._prefix = error, prefix

    def replace(self, key: str, data: bytes) -> None:
        if key.startswith(self._prefix):
            raise self._error
        super().replace(key, data)


def test_a_store_that_is_gone_does_not_hide_why_the_run_ended(caplog: pytest.LogCaptureFixture) -> None:
    gone = FailingStorage(StorageError("the bucket is gone"), prefix="")
    with pytest.raises(GenerationFailedError, match="no engine"):
        carried_out(gone, GenerationFailedError("no engine came up"))
    assert "the bucket is gone" in caplog.text


class CommittingJob:
    """A job that writes all rows."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.ledger = Ledger([])

    def work(self, *_: object) -> None:
        for start in (0, 4):
            commit(self._storage, build_of(), start, start + 4)

    def snapshot(self) -> Any:
        return SimpleNamespace(seconds=1.0, engines=EngineStats())


def completed(storage: Storage, committing: CommittingJob | None = None) -> run.BuildResult:
    record = build_record.open_build(storage, build_of())
    begun = run_records.start_run(storage, num_rows=8, host="here", config={})
    job: Any = committing or CommittingJob(storage)
    return run.carry_out(lambda: job, begun, storage, record, lambda: False)


def test_a_run_that_completes_the_build_leaves_a_report_before_the_mark_of_success() -> None:
    order = []

    class Marked(Storage):
        def replace(self, key: str, data: bytes) -> None:
            if key == SUCCESS_KEY:
                order.append(self.exists(REPORT_KEY))
            super().replace(key, data)

    storage = Marked(memory_storage().url)
    result = completed(storage)
    assert order == [True]
    assert result.report == storage.display(REPORT_KEY)
    page = storage.read(REPORT_KEY).decode()
    assert re.search(r"<dd>8</dd>\s*<dd>all rows of the build</dd>", page)
    assert '<td class="text">done</td>' in page


def test_watchers_hear_of_the_end_of_the_jobs_work_before_its_files_are_looked_for() -> None:
    order = []

    class Listed(Storage):
        def list_objects(self, prefix: str, beginning: str = "") -> list[StoredObject]:
            order.append(prefix)
            return super().list_objects(prefix, beginning)

    class Working(CommittingJob):
        def work(self, *_: object) -> None:
            super().work()
            order.clear()

    class Watching(Watcher):
        def note_last(self) -> None:
            order.append("the last")

    storage = Listed(memory_storage().url)
    record = build_record.open_build(storage, build_of())
    begun = run_records.start_run(storage, num_rows=8, host="here", config={})
    job: Any = Working(storage)
    run.carry_out(lambda: job, begun, storage, record, lambda: False, [Watching()])
    assert order[0] == "the last"
    assert "data" in order


class TamperedJob(CommittingJob):
    """A job whose records are removed while it works; perhaps another build begins in its place."""

    def __init__(self, storage: Storage, *, other: bool) -> None:
        super().__init__(storage)
        self._other = other

    def work(self, *_: object) -> None:
        super().work()
        for item in self._storage.list_objects("_magpie"):
            self._storage.delete(item.key)
        if self._other:
            build_record.open_build(self._storage, build_of(seed=7))


def test_a_run_whose_records_were_removed_writes_them_again(caplog: pytest.LogCaptureFixture) -> None:
    storage = memory_storage()
    completed(storage, TamperedJob(storage, other=False))
    assert verify(storage).problems == ()
    [record] = run_records.read_runs(storage)
    assert (record.number, record.outcome) == (1, "done")
    assert "build.json was removed" in caplog.text


def test_a_run_in_whose_place_another_build_has_begun_ends_and_writes_nothing_there() -> None:
    storage = memory_storage()
    with pytest.raises(BuildReplacedError, match=r"build\.json is of another build") as caught:
        completed(storage, TamperedJob(storage, other=True))
    assert caught.value.exit_code == 1
    assert [item.key for item in storage.list_objects("_magpie")] == [BUILD_KEY]
    assert not storage.exists(SUCCESS_KEY)


class LosingJob(CommittingJob):
    """A job that hears of all rows; somebody removes a file before the end of the run looks for it."""

    def work(self, *_: object) -> None:
        for start in (0, 4):
            self.ledger.note(commit(self._storage, build_of(), start, start + 4))
        self._storage.delete("data/part-000000000004.parquet")


@pytest.mark.parametrize(("stopped", "error"), [(False, GenerationFailedError), (True, InterruptedJobError)])
def test_a_run_that_fails_after_its_last_row_leaves_the_hashes_of_its_files(
    stopped: bool, error: type[MagpieError]
) -> None:
    storage = memory_storage()
    record = build_record.open_build(storage, build_of())
    begun = run_records.start_run(storage, num_rows=8, host="here", config={})
    job: Any = LosingJob(storage)
    with pytest.raises(error):
        run.carry_out(lambda: job, begun, storage, record, lambda: stopped, sleep=lambda seconds: None)
    [kept] = manifest.read_committed(storage, record)
    assert kept.sha256 == hashlib.sha256(storage.read(kept.partition.key)).hexdigest()


@pytest.mark.parametrize("error", [StorageError("no room"), ZeroDivisionError("a bug")])
def test_a_report_that_cannot_be_made_is_a_warning_with_a_remedy_and_no_more(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    storage = FailingStorage(error, prefix=REPORT_KEY)
    assert completed(storage).report is None
    assert storage.exists("_SUCCESS")
    [warning] = [entry for entry in caplog.records if entry.levelname == "WARNING"]
    assert str(error) in warning.message
    assert f"`magpie-ray report {storage.url}` tries again" in warning.message
    assert (warning.exc_info is not None) == isinstance(error, ZeroDivisionError)


def test_a_run_that_fails_leaves_a_report_of_what_there_is() -> None:
    storage = memory_storage()
    with pytest.raises(GenerationFailedError):
        carried_out(storage, GenerationFailedError("no <engine> came up"))
    page = storage.read(REPORT_KEY).decode()
    assert "failed: no &lt;engine&gt; came up" in page
    assert "not complete" in page


def test_a_run_that_is_stopped_while_its_last_words_get_no_answer_was_interrupted() -> None:
    gone = FailingStorage(StorageError("no reply came in the time that was left"), prefix="_magpie/manifest")
    record = build_record.open_build(gone, build_of())
    begun = run_records.start_run(gone, num_rows=8, host="here", config={})
    job: Any = CommittingJob(gone)
    with pytest.raises(StorageError, match="no reply came"):
        run.carry_out(lambda: job, begun, gone, record, lambda: True)
    assert run_records.read_runs(gone)[0].outcome == "interrupted"


def test_a_run_that_is_interrupted_does_not_stay_for_a_report() -> None:
    storage = memory_storage()
    with pytest.raises(InterruptedJobError):
        carried_out(storage, InterruptedJobError("stopped"))
    assert not storage.exists(REPORT_KEY)


def test_a_result_names_its_path_in_brief_and_opens_its_rows(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path)), num_rows=10)
    result = run.BuildResult(url=str(tmp_path), num_rows=10, new_rows=4)
    assert repr(result) == f"BuildResult(10 rows in {tmp_path}, 4 new)"
    assert result.dataset(cache_dir=str(tmp_path / "cache"))["row_id"][:] == list(range(10))
