"""A process that has to end: its calls end by one deadline, whatever the store does."""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from magpie_ray.errors import StorageError
from magpie_ray.storage.deadline import Deadline
from magpie_ray.storage.storage import Storage
from tests.storage.places import on_s3
from tests.support.s3_server import FaultProxy


def test_an_attempt_returns_or_raises_what_it_would_without_a_deadline() -> None:
    deadline = Deadline()
    assert deadline.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        deadline.run(lambda: 1 // 0)
    deadline.bring_forward(60)
    assert deadline.run(lambda: 7) == 7


def test_a_deadline_only_comes_nearer() -> None:
    deadline = Deadline(clock=lambda: 100.0)
    deadline.bring_forward(20)
    deadline.bring_forward(30)
    assert deadline.seconds_left == 20
    deadline.bring_forward(5)
    assert deadline.seconds_left == 5


@pytest.mark.parametrize("waits", ["for a reply", "between two attempts"])
def test_a_call_under_way_ends_when_the_deadline_is_brought_forward(waits: str) -> None:
    deadline, over = Deadline(), threading.Event()
    call: Callable[[], object] = lambda: deadline.run(over.wait)  # noqa: E731
    if waits == "between two attempts":
        call = lambda: deadline.sleep(60)  # noqa: E731
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call)
        deadline.bring_forward(0)
        if waits == "for a reply":
            with pytest.raises(TimeoutError, match="time"):
                running.result(timeout=30)
        else:
            running.result(timeout=30)
    over.set()


def test_an_attempt_without_a_reply_is_given_up_also_without_a_deadline() -> None:
    over = threading.Event()
    with pytest.raises(TimeoutError, match="no reply came for 0 s"):
        Deadline().run(over.wait, most_seconds=0.01)
    over.set()


def test_after_the_deadline_every_call_fails_at_once_and_says_why(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.give_up_after(0)
    for late in (storage, storage.retrying_for(5), storage.for_single_writer()):
        with pytest.raises(StorageError, match=r"Could not create .*/data/a: .*no time left"):
            late.create("data/a", b"x")
    pickle.loads(pickle.dumps(storage)).create("data/a", b"another process has its own deadline")


@pytest.mark.parametrize("fault", ["stall", "503 SlowDown"])
def test_uploads_to_a_store_that_hangs_or_refuses_share_one_budget(proxy: FaultProxy, fault: str) -> None:
    storage = on_s3(proxy.server, max_wait_seconds=60)
    storage.create("data/first", b"x")
    proxy.storm(1.0, [fault], seed=0)
    with ThreadPoolExecutor(3) as pool:
        began = time.monotonic()
        uploads = [pool.submit(storage.retrying_for(600).create, f"data/{i}", b"x") for i in range(3)]
        proxy.wait_for(fault)
        storage.give_up_after(0.5)
        for upload in uploads:
            with pytest.raises(StorageError, match="Could not create"):
                upload.result(timeout=60)
        assert time.monotonic() - began < 20
    proxy.calm()
