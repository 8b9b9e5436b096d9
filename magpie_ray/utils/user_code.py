"""Code of the user that runs in this process: a rule, a chat format, a module that holds them.

Invariant: whatever such code raises is its own failure, unless a signal came while it ran.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def user_code() -> Iterator[Callable[[BaseException], bool]]:
    """Yields whether an exception is the code's own failure, as a function.

    KeyboardInterrupt and SystemExit are its own, too, unless a signal has raised them: code that raises them
    by itself must not look like a user's Ctrl-C.
    """
    if threading.current_thread() is not threading.main_thread():  # no signal raises anything there
        yield lambda _: True
        return
    heard: list[int] = []
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def note(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        before[number](number, frame)

    for number in _SIGNALS:
        if callable(handler := signal.getsignal(number)):
            before[number] = handler
            signal.signal(number, note)
    try:
        yield lambda exc: isinstance(exc, Exception) or not heard
    finally:
        for changed, handler in before.items():
            if signal.getsignal(changed) is note:  # else the code has set its own
                signal.signal(changed, handler)
