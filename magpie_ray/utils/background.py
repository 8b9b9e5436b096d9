"""Calls that may never return, in daemon threads: a request to a dead server, a client library that waits.

Invariant: neither a caller's time limit nor the end of the process waits for such a call. The threads of
concurrent.futures do not serve here, because the interpreter joins them before it exits.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from magpie_ray.utils.awake import awake_seconds

# A wait looks this often whether this process was suspended meanwhile.
_LOOK_SECONDS = 1.0

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple[Future[Any], Callable[[], Any]]

_given_up: list[Future[Any]] = []


class DaemonExecutor(Executor):
    """Runs calls in up to so many daemon threads, in the order in which they came."""

    def __init__(self, max_workers: int = 1, *, name: str = "background") -> None:
        self._max_workers, self._name = max_workers, name
        self._tasks = SimpleQueue[_Task | None]()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._pending = 0
        self._closed = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future = Future[T]()
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor was shut down")
            self._pending += 1
            self._tasks.put((future, partial(fn, *args, **kwargs)))
            if len(self._threads) < min(self._pending, self._max_workers):
                self._start_thread()
        return future

    def _start_thread(self) -> None:
        """Another thread. RuntimeError where the system gives none, and none is there to make the call."""
        thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            if not self._threads:
                self._pending -= 1
                self._tasks.get_nowait()
                raise
        else:
            self._threads.append(thread)

    def _work(self) -> None:
        while task := self._tasks.get():
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as exc:  # noqa: BLE001 - it is raised where the result is asked for
                    future.set_exception(exc)
            with self._lock:
                self._pending -= 1
            del task, future, call  # an idle thread keeps nothing alive

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """No more calls are taken. wait: until all calls that were taken have ended."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        with suppress(queue.Empty):
            while cancel_futures:
                if task := self._tasks.get_nowait():
                    task[0].cancel()
        for _ in threads:
            self._tasks.put(None)
        for thread in threads if wait else ():
            thread.join()


def in_background(call: Callable[[], T]) -> Future[T]:
    """Makes the call in a daemon thread, which ends with it."""
    executor = DaemonExecutor()
    future = executor.submit(call)
    executor.shutdown(wait=False)
    return future


def within(
    seconds: float,
    call: Callable[[], T],
    *,
    executor: DaemonExecutor | None = None,
    if_late: Callable[[T], object] | None = None,
    clock: Callable[[], float] = awake_seconds,
) -> T:
    """What the call returns or raises. TimeoutError when it takes longer: nothing waits for it any more.

    executor: whose thread makes the call; None: a thread that ends with the call. if_late: gets what the call
    returns after all. clock: seconds that this process was awake.
    """
    future = executor.submit(call) if executor else in_background(call)
    until = clock() + seconds
    try:
        while not future.done() and (left := until - clock()) > 0:
            wait([future], timeout=min(left, _LOOK_SECONDS))
    finally:  # a signal may end the wait
        if not future.done():
            _given_up[:] = [other for other in _given_up if not other.done()] + [future]
    if future.done():
        return future.result()
    if if_late:
        future.add_done_callback(lambda late: late.exception() or if_late(late.result()))
    raise TimeoutError(f"no answer for {seconds:.0f} s")


def still_waits() -> bool:
    """Whether a call that `within` gave up has not returned to this day."""
    return any(not future.done() for future in _given_up)
