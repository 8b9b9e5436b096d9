"""Logging of a job's process: for people at a terminal, in plain lines, or as one JSON object a line.

Owns the handlers: only the command line and each actor's process set them up, and they do it here. Invariant:
records of libraries take the same way, from WARNING on, and from INFO on in a verbose job.
"""

import logging
import sys
from dataclasses import dataclass
from functools import cache
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler

_PLAIN = "%(asctime)s %(levelname)s %(message)s"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogStyle:
    """verbose: with this project's debug lines and the libraries' info lines. json: for machines."""

    verbose: bool = False
    json: bool = False


_style = LogStyle()


@cache
def terminal() -> Console:
    """The console on standard error. Display and log share it, so that neither writes into the other."""
    return Console(stderr=True)


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
        handler = RichHandler(console=terminal(), show_path=False, markup=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter(_PLAIN))
    logging.basicConfig(
        level=logging.INFO if style.verbose else logging.WARNING, handlers=[handler], force=style.json
    )
    logging.getLogger("magpie_ray").setLevel(logging.DEBUG if style.verbose else logging.INFO)


def take_over(library: str) -> None:
    """Send the records of a library that has handlers of its own to ours."""
    logger = logging.getLogger(library)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def _log_uncaught(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    logging.getLogger("magpie_ray").critical("%s: %s", kind.__name__, exc, exc_info=(kind, exc, trace))
