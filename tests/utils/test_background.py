"""Calls that may never return, and that nobody waits for."""

import gc
import queue
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, wait
from functools import partial

import pytest

from magpie_ray.utils.background import DaemonExecutor, still_waits, within


def test_calls_run_in_order_and_give_results_and_errors() -> None:
    with DaemonExecutor() as executor:
        results = list(executor.map(lambda x: x * x, range(5)))
        failed = executor.submit(lambda: 1 // 0)
    assert results == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        failed.result()


def test_no_more_threads_run_than_allowed_nor_than_needed() -> None:
    barrier = threading.Barrier(3, timeout=10)
    before = threading.active_count()
    with DaemonExecutor(2) as executor:
        futures = [executor.submit(barrier.wait) for _ in range(2)]
        assert threading.active_count() == before + 2
        barrier.wait()
        wait(futures)
        for _ in range(10):
            executor.submit(int).result()
        assert threading.active_count() <= before + 2


def test_where_no_thread_can_start_the_call_is_refused_and_the_executor_serves_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with DaemonExecutor(2) as executor:
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", refuses)
            with pytest.raises(RuntimeError, match="new thread"):
                executor.submit(lambda: pytest.fail("it was refused"))
        assert executor.submit(lambda: 7).result(timeout=30) == 7
        free, busy = threading.Event(), threading.Event()
        held = executor.submit(lambda: (busy.set(), free.wait(30)))
        assert busy.wait(30)
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", refuses)
            later = executor.submit(lambda: 8)  # the thread that there is makes the call
        free.set()
        assert later.result(timeout=30) == 8
        assert held.result(timeout=30)


def test_an_executor_that_was_shut_down_takes_no_more_and_can_cancel_the_rest() -> None:
    free = threading.Event()
    executor = DaemonExecutor()
    running, waiting = executor.submit(free.wait), executor.submit(int)
    executor.shutdown(wait=False, cancel_futures=True)
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(int)
    free.set()
    assert running.result(timeout=10)
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)


def test_a_call_that_is_quick_enough_is_like_a_plain_one() -> None:
    assert within(10, lambda: "done") == "done"
    with pytest.raises(KeyError):
        within(10, lambda: {}["no"])


def test_a_call_that_takes_too_long_is_given_up_and_known_to_go_on() -> None:
    free = threading.Event()
    with pytest.raises(TimeoutError, match="no answer for 0 s"):
        within(0.0, free.wait)
    assert still_waits()
    free.set()
    for thread in threading.enumerate():
        if thread.name == "background":
            thread.join(timeout=10)
    assert not still_waits()


@pytest.mark.parametrize("late", [True, False])
def test_what_comes_too_late_is_handed_over_and_what_comes_in_time_is_not(late: bool) -> None:
    free, got = threading.Event(), queue.SimpleQueue[str]()

    def call() -> str:
        free.wait()
        return "an actor"

    if late:
        with pytest.raises(TimeoutError):
            within(0.0, call, if_late=got.put)
        free.set()
        assert got.get(timeout=10) == "an actor"
    else:
        free.set()
        assert within(10.0, call, if_late=got.put) == "an actor"
        assert got.empty()


def test_a_call_is_waited_for_while_this_process_is_suspended() -> None:
    free, readings = threading.Event(), iter([0.0] * 5)

    def clock() -> float:
        """Stands still, and frees the call after a while."""
        if next(readings, None) is None:
            free.set()
        return 0.0

    assert within(0.01, free.wait, clock=clock)


def test_calls_that_were_given_up_and_have_returned_are_forgotten() -> None:
    class Held:
        """What the call returns."""

    def late(free: threading.Event) -> Held:
        free.wait()
        return Held()

    for _ in range(3):
        free = threading.Event()
        with pytest.raises(TimeoutError):
            within(0.0, partial(late, free))
        free.set()
        for thread in threading.enumerate():
            if thread.name == "background":
                thread.join(timeout=10)
    assert sum(type(item) is Held for item in gc.get_objects() if type(item).__name__ == "Held") <= 1


def test_a_process_ends_although_such_calls_never_return() -> None:
    script = """
import threading
from magpie_ray.utils.background import DaemonExecutor, within
DaemonExecutor(2).submit(threading.Event().wait)
try:
    within(0.01, threading.Event().wait)
except TimeoutError:
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "ended\n"
