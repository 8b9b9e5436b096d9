"""The last words of a run, whatever ended it."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from magpie_ray.coordinator import run
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import build_record, run_records
from magpie_ray.dataset.layout import REPORT_KEY, SUCCESS_KEY
from magpie_ray.errors import GenerationFailedError, InterruptedJobError, StorageError
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, commit, memory_storage


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

    def work(self, *_: object) -> None:
        for start in (0, 4):
            commit(self._storage, build_of(), start, start + 4)

    def snapshot(self) -> Any:
        return SimpleNamespace(seconds=1.0, engines=EngineStats())


def completed(storage: Storage) -> run.BuildResult:
    record = build_record.open_build(storage, build_of())
    begun = run_records.start_run(storage, num_rows=8, host="here", config={})
    job: Any = CommittingJob(storage)
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


@pytest.mark.parametrize("error", [StorageError("no room"), ZeroDivisionError("a bug")])
def test_a_report_that_cannot_be_made_is_a_warning_with_a_remedy_and_no_more(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    storage = FailingStorage(error, prefix=REPORT_KEY)
    assert completed(storage).report is None
    assert storage.exists("_SUCCESS")
    [warning] = [entry for entry in caplog.records if "report" in entry.message]
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


def test_a_run_that_is_interrupted_does_not_stay_for_a_report() -> None:
    storage = memory_storage()
    with pytest.raises(InterruptedJobError):
        carried_out(storage, InterruptedJobError("stopped"))
    assert not storage.exists(REPORT_KEY)
