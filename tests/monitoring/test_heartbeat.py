"""The heartbeat of a run."""

import logging
from dataclasses import replace
from typing import Any

import pytest

from magpie_ray.dataset.run_records import BEAT_SECONDS, read_heartbeat
from magpie_ray.errors import StorageError
from magpie_ray.monitoring import heartbeat
from magpie_ray.monitoring.heartbeat import Heartbeat
from magpie_ray.storage.storage import Storage
from tests.monitoring.test_progress import HALF_WAY
from tests.support.builds import memory_storage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    return now


def wait_for(heartbeat: Heartbeat) -> None:
    """Until its thread has nothing to do."""
    heartbeat._thread.submit(lambda: None).result()


def test_the_first_snapshot_is_written_at_once_and_another_one_each_half_minute(clock: list[float]) -> None:
    storage = memory_storage()
    assert read_heartbeat(storage, 3) is None
    with Heartbeat(storage, 3) as heartbeat:
        seen = []
        for rows in range(7):
            heartbeat.show(replace(HALF_WAY, rows=rows))
            wait_for(heartbeat)
            told = read_heartbeat(storage, 3)
            assert told is not None
            seen.append(told["rows"])
            clock[0] += BEAT_SECONDS / 2
    assert seen == [0, 0, 2, 2, 4, 4, 6]


def test_a_store_that_fails_is_told_once_and_stops_nothing(
    clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)

    def fail(*_: Any) -> None:
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(Storage, "replace", fail)
    with Heartbeat(memory_storage(), 1) as heartbeat:
        for _ in range(4):
            heartbeat.show(HALF_WAY)
            wait_for(heartbeat)
            clock[0] += BEAT_SECONDS
    assert caplog.text.count("the bucket is gone") == 1
