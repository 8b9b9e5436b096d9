"""The last words of a run, whatever ended it."""

from typing import Any

import pytest

from magpie_ray import build, run
from magpie_ray.errors import GenerationFailedError, InterruptedJobError, StorageError
from magpie_ray.storage import Storage
from tests.builds import build_of, memory_storage


class EndingJob:
    """A job whose work ends in an error."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def work(self, *_: object) -> None:
        raise self._error


def carried_out(storage: Storage, error: BaseException) -> None:
    record = build.open_build(storage, build_of())
    begun = build.start_run(storage, num_rows=8, host="here", config={})
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
    [record] = build.read_runs(storage)
    assert record.outcome == outcome
    assert str(error) in str(record.cause)


def test_a_store_that_is_gone_does_not_hide_why_the_run_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(build, "end_run", fail)
    with pytest.raises(GenerationFailedError, match="no engine"):
        carried_out(memory_storage(), GenerationFailedError("no engine came up"))
    assert "the bucket is gone" in caplog.text
