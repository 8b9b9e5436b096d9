"""SIGINT and SIGTERM as a question that a running job asks itself."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger(__name__)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yields whether a SIGINT or SIGTERM has come, as a function; a second one raises KeyboardInterrupt."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        log.warning("%s: stopping; finished rows are being committed", signal.Signals(number).name)

    try:
        for awaited in (signal.SIGINT, signal.SIGTERM):
            previous[awaited] = signal.signal(awaited, note)
    except ValueError:  # not the main thread, where alone Python handles signals
        yield lambda: False
        return
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
