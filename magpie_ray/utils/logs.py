"""Logging of a job's process: for people at a terminal, in plain lines, or as one JSON object a line.

Owns the handlers: only the command line and each actor's process set them up, and they do it here; a job in a
notebook has one while it lasts. Invariant: records of libraries take the same way, from WARNING on, and from
INFO on in a verbose job.
"""

import io
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.logging import RichHandler
from rich.text import Text

from magpie_ray.utils.text import clock_text

_BEGAN = time.time()
_PLAIN = "%(asctime)s %(levelname)s %(message)s"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogStyle:
    """verbose: with this project's debug lines and the libraries' info lines. json: for machines."""

    verbose: bool = False
    json: bool = False


_style = LogStyle()


class _StandardError(io.TextIOBase):
    """Standard error, whichever it is now. One that nobody reads any more, or that is full, ends no run."""

    @property
    def _stream(self) -> TextIO:
        stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # under a live display
        return stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def close(self) -> None:
        """Standard error stays open. At the end of Python 3.13 there would be nothing left to flush with."""


@cache
def terminal() -> Console:
    """The console on standard error. Display and log share it, so that neither writes into the other."""
    return Console(file=_StandardError())  # type: ignore[arg-type]


def current() -> LogStyle:
    """The style in which this process logs: the default until `set_up` was called."""
    return _style


def set_up(style: LogStyle) -> None:
    """Log to standard error in this style from now on."""
    global _style
    _style = style
    handler: logging.Handler = logging.StreamHandler()
    if style.json:
        from pythonjsonlogger.json import JsonFormatter

        names = {"levelname": "level", "name": "logger", "exc_info": "exception"}
        form = "%(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(form, rename_fields=names, timestamp="time"))
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
    elif terminal().is_terminal:  # rich keeps log lines apart from the display
        handler = RichHandler(
            console=terminal(), show_path=False, show_level=False, markup=False, log_time_format=_elapsed
        )
        handler.setFormatter(_TerminalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter(_PLAIN))
    # The hub's client adds a handler of its own and also hands its records on: each would come twice.
    logging.getLogger("huggingface_hub").addHandler = _no_handler  # type: ignore[method-assign,assignment]
    logging.basicConfig(
        level=logging.INFO if style.verbose else logging.WARNING, handlers=[handler], force=style.json
    )
    logging.getLogger("magpie_ray").setLevel(logging.DEBUG if style.verbose else logging.INFO)


@contextmanager
def told_in_notebook() -> Iterator[None]:
    """In a notebook a job's lines stand below its cell, unless the notebook logs them itself."""
    ours = logging.getLogger("magpie_ray")
    if not terminal().is_jupyter or ours.isEnabledFor(logging.INFO):
        yield
        return
    began, level, propagates = time.time(), ours.level, ours.propagate
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_NotebookFormatter(began))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagates


class _TerminalFormatter(logging.Formatter):
    """Names the level of what is more than information."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno > logging.INFO else text


class _NotebookFormatter(_TerminalFormatter):
    """With the time since the job began in front."""

    def __init__(self, began: float) -> None:
        super().__init__("%(message)s")
        self._began = began

    def format(self, record: logging.LogRecord) -> str:
        return f"{clock_text(record.created - self._began):>7} {super().format(record)}"


def _elapsed(at: datetime) -> Text:
    """The time since this process began to log. People at a terminal wait for stages, and know the date."""
    return Text(f"{clock_text(at.timestamp() - _BEGAN):>7}")


def _no_handler(_: logging.Handler) -> None:
    pass


def take_over(library: str) -> None:
    """Send the records of a library that has handlers of its own to ours."""
    logger = logging.getLogger(library)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def _log_uncaught(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("magpie_ray").critical("%s: %s", kind.__name__, exc, exc_info=(kind, exc, trace))
