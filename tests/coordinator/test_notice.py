"""One budget of time for the end of a run."""

import time
from pathlib import Path

import pytest

from magpie_ray.coordinator.notice import (
    CHECKPOINT_SHARE,
    ENDED_SHARE,
    HEARD_SHARE,
    SLACK_SECONDS,
    STORED_SHARE,
    Notice,
)
from magpie_ray.errors import StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.worker import FINISH_SHARE, UPLOADS_SHARE


def test_the_steps_of_the_end_come_in_order_and_all_of_them_fit() -> None:
    shares = [0.0, FINISH_SHARE, UPLOADS_SHARE, HEARD_SHARE, ENDED_SHARE, CHECKPOINT_SHARE, STORED_SHARE, 1.0]
    assert shares == sorted(set(shares))
    assert 0 < SLACK_SECONDS <= 5


def test_the_time_runs_from_the_first_call_on_and_each_step_has_what_is_left(tmp_path: Path) -> None:
    now = 100.0
    notice = Notice(20.0, Storage(str(tmp_path)), clock=lambda: now)
    assert notice.left(HEARD_SHARE) == 16.0
    assert notice.left(CHECKPOINT_SHARE, most=5.0) == 5.0
    now = 200.0
    notice.begin()
    now = 210.0
    notice.begin()
    assert notice.left(HEARD_SHARE) == 6.0
    assert notice.left(CHECKPOINT_SHARE, most=5.0) == 5.0
    now = 215.0
    assert notice.left(CHECKPOINT_SHARE, most=5.0) == 3.0
    now = 300.0
    assert notice.left(STORED_SHARE) == 0.0


class HungStorage(Storage):
    """No request of it is ever answered."""

    def replace(self, key: str, data: bytes) -> None:
        self._call("write", key, lambda _: time.sleep(600))


def test_what_is_still_written_shares_the_time(tmp_path: Path) -> None:
    storage = HungStorage(str(tmp_path))
    Notice(0.2, storage).begin()
    began = time.monotonic()
    for late in (storage, storage.retrying_for(5)):
        with pytest.raises(StorageError, match="time"):
            late.replace("_magpie/runs/000001.json", b"{}")
    assert time.monotonic() - began < 5
