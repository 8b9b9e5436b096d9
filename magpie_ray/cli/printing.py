"""What commands print: text or JSON, through a pager, again and again, or as an error.

What always holds: nothing that is printed here can steer a terminal (safe_text).
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import typer
from rich.console import Console

from magpie_ray.cli.views import results
from magpie_ray.utils import logs
from magpie_ray.utils.text import safe

log = logging.getLogger(__name__)

# How often a watched build is read again; a large one, which takes long to list, more rarely.
_WATCH_SECONDS, _WATCH_SHARE = 5.0, 4
# What a shell says of a program whose reader has left: 128 and the number of SIGPIPE.
_CLOSED_PIPE = 141


def out(text: str) -> None:
    """Text on standard output, which does nothing to a terminal."""
    sys.stdout.write(safe(text) + "\n")


def show_fields(fields: dict[str, Any], *, as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Fields as JSON, or as text for people."""
    out(results.json_text(fields) if as_json else text(fields))


def tell_error(text: str) -> None:
    """One message on standard error, or in the log where that is for machines."""
    if logs.current().json:
        log.error("%s", text)
    else:
        sys.stderr.write(safe(f"error: {text}\n"))


def watch_until_complete(read: Callable[[], dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> None:
    """Draws what is read until it is complete, or until Ctrl-C, which is no failure here."""
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt), Live(auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            fields = read()
            live.update(Text(safe(text(fields))), refresh=True)
            if fields["complete"]:
                return
            time.sleep(max(_WATCH_SECONDS, _WATCH_SHARE * (time.monotonic() - started)))


@contextmanager
def quiet_when_closed() -> Iterator[None]:
    """For what may be piped into `head`: it ends without a word, as other programs do."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise typer.Exit(_CLOSED_PIPE) from exc


def paged(console: Console) -> AbstractContextManager[object]:
    """A pager where somebody sits at a terminal; `less` shows colours, and ends where all fits the screen."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return nullcontext()
    os.environ.setdefault("LESS", "-RFX")
    return console.pager(styles=True)
