"""An actor has given up the output: can the driver use it?"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from magpie_ray.coordinator.output_trial import OutputTrial
from magpie_ray.errors import GenerationFailedError, PreflightError, StorageError
from magpie_ray.storage.storage import Storage

GIVEN_UP = StorageError("Could not create part-0: no answer.")


class MuteStorage(Storage):
    """It answers a probe when the test is over."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.over = threading.Event()

    def probe(self) -> bool:
        return self.over.wait()


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[MuteStorage]:
    storage = MuteStorage(str(tmp_path))
    yield storage
    storage.over.set()


class OutStorage(Storage):
    """Its probes fail, as a client library says it."""

    def __init__(self, url: str, cause: Exception) -> None:
        super().__init__(url)
        self._cause, self.probes = cause, 0

    def probe(self) -> bool:
        self.probes += 1
        try:
            raise StorageError("Could not write") from self._cause
        except StorageError as exc:
            raise PreflightError(f"The output can't be used: {self._cause}") from exc


def never() -> bool:
    return False


def test_an_output_that_works_is_no_reason_to_end(tmp_path: Path) -> None:
    assert OutputTrial(Storage(str(tmp_path))).run(GIVEN_UP, stop_requested=never)


def test_an_output_that_is_refused_ends_the_run(tmp_path: Path) -> None:
    refused = OutStorage(str(tmp_path), PermissionError("403 Forbidden"))
    with pytest.raises(GenerationFailedError, match=r"part-0: no answer\. Then the driver: .*403 Forbidden"):
        OutputTrial(refused).run(GIVEN_UP, stop_requested=never)


def test_an_outage_is_left_to_the_actors_which_wait_for_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = OutStorage(str(tmp_path), ConnectionResetError("reset"))
    assert not OutputTrial(out).run(GIVEN_UP, stop_requested=never)
    assert "the driver can't use it now either: The output can't be used: reset" in caplog.text


def test_an_output_that_does_not_answer_is_out_and_not_waited_for_any_longer(
    mute: MuteStorage, caplog: pytest.LogCaptureFixture
) -> None:
    OutputTrial(mute, most_seconds=0.01).run(GIVEN_UP, stop_requested=never)
    assert f"no answer from {mute.url} for 0.01 s" in caplog.text


def test_when_many_actors_give_up_together_the_driver_tries_once(tmp_path: Path) -> None:
    now = 1000.0
    storage = OutStorage(str(tmp_path), ConnectionResetError("reset"))
    trial = OutputTrial(storage, every_seconds=300.0, clock=lambda: now)
    for _ in range(3):
        assert not trial.run(GIVEN_UP, stop_requested=never)
    assert storage.probes == 1
    now += 300.0
    trial.run(GIVEN_UP, stop_requested=never)
    assert storage.probes == 2


def test_a_run_that_is_told_to_stop_does_not_wait_for_an_output_that_does_not_answer(
    mute: MuteStorage,
) -> None:
    OutputTrial(mute).run(GIVEN_UP, stop_requested=lambda: True)
