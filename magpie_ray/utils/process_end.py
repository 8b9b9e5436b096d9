"""The end of the process by force, when what it waits for never returns.

A signal reaches Python code in the main thread only, and a main thread that is stuck inside a library never
gets there. So a thread of its own hears the signals, and ends the process when the time for its end is over.

Invariants: only a command line is guarded, because a program that calls the library decides itself when it
ends; no signal shortens a run that is not guarded; whatever standard error does, the process ends.
"""

import logging
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from magpie_ray.utils.background import within

# From the first signal on, for commands that have nothing to save.
USUAL_SECONDS = 10.0
# From the second signal on, and for what is left to do when the command itself has ended.
SHORT_SECONDS = 2.0
# Nobody may read standard error any more.
_WORDS_SECONDS = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTED = 3

_allowed_seconds = USUAL_SECONDS


@contextmanager
def allowing(seconds: float) -> Iterator[None]:
    """Inside, the end of a guarded process may take so long after the first signal."""
    global _allowed_seconds
    before, _allowed_seconds = _allowed_seconds, seconds
    try:
        yield
    finally:
        _allowed_seconds = before


class Guard:
    """Hears the signals of this process, whatever its main thread does, and ends the process in time.

    say: prints the last words. end: ends the process with an exit code.
    """

    def __init__(self, say: Callable[[str], None], *, end: Callable[[int], object] = os._exit) -> None:
        self._say, self._end = say, end
        self._code, self._deadline, self._heard = _INTERRUPTED, math.inf, 0
        self._events, self._teller = socket.socketpair()
        self._teller.setblocking(False)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The command runs inside, in the main thread. Once a signal is heard, the watch goes on after it."""
        before = signal.set_wakeup_fd(self._teller.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="process-end", daemon=True).start()
        try:
            yield
        finally:
            if not self._heard:
                signal.set_wakeup_fd(before)
                self._teller.close()

    def note_end(self, code: int) -> None:
        """The command has ended with this exit code and its own last words; only a little is left to do."""
        self._code, self._say = code, _nothing
        if self._heard:
            self._allow(SHORT_SECONDS)

    def _allow(self, seconds: float) -> None:
        self._deadline = min(self._deadline, time.monotonic() + seconds)
        self._teller.send(b"\0")  # the watch looks at the deadline

    def _watch(self) -> None:
        with self._events:
            while (left := self._deadline - time.monotonic()) > 0:
                ready, _, _ = select.select([self._events], [], [], None if left == math.inf else left)
                told = self._events.recv(64) if ready else b"\0"
                if not told:
                    return  # closed: the command has ended without a signal
                for number in told:
                    if number in _SIGNALS:
                        self._heard += 1
                        self._allow(_allowed_seconds if self._heard == 1 else SHORT_SECONDS)
        with suppress(Exception):
            within(_WORDS_SECONDS, self._last_words)
        self._end(self._code)

    def _last_words(self) -> None:
        self._say(
            "interrupted; what this process still waits for (Ray, or storage) does not answer in time and is "
            "left behind. Committed rows are kept, and the same command resumes"
        )
        logging.shutdown()


def _nothing(_: str) -> None:
    """All was said."""
