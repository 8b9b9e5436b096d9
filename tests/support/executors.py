"""Executors for tests without threads."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from magpie_ray.errors import MagpieError


class AtOnce(Executor):
    """Runs what is submitted at once, in the same thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except MagpieError as exc:
            future.set_exception(exc)
        return future
