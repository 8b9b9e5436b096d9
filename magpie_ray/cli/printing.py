"""How commands print: text or JSON, through a pager, refreshed, or as an error.

Invariants: nothing that is printed here can control a terminal (magpie_ray.utils.text.safe). What a command
has done stands, whether or not anybody reads what it says. Only a command whose work is its text fails where
standard output has no room.
"""

import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import typer
from rich.console import Console

from magpie_ray.errors import MagpieError
from magpie_ray.utils import logs
from magpie_ray.utils.text import is_harmless, safe

log = logging.getLogger(__name__)

# How often a watched build is read again. Reading a large one takes a fifth of the time at most.
_WATCH_SECONDS, _WATCH_SHARE = 5.0, 4
# What a shell reports for a program whose reader has closed the pipe: 128 and the number of SIGPIPE.
_CLOSED_PIPE = 141


def open_standard_streams() -> None:
    """A stream that the caller has closed leads nowhere, instead of into the next file that is opened."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


@contextmanager
def _standard_output() -> Iterator[None]:
    """BrokenPipeError when nobody reads it any more, MagpieError when it has no room."""
    try:
        yield
        sys.stdout.flush()
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discards what is still buffered
        if isinstance(exc, BrokenPipeError) or exc.errno == errno.EIO:  # a terminal that was closed
            raise BrokenPipeError from exc
        raise MagpieError(f"standard output can't be written to: {exc}") from exc


def out(text: str) -> None:
    """What a command says of its work on standard output, with control characters made visible."""
    try:
        _print(text)
    except MagpieError as exc:
        print_error(str(exc))


def _print(text: str) -> None:
    with suppress(BrokenPipeError), _standard_output():
        sys.stdout.write(safe(text) + "\n")


def show_fields(fields: dict[str, Any], *, as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    """Fields as JSON, or as text for people: the work of a command."""
    _print(json_text(fields) if as_json else text(fields))


def json_text(fields: dict[str, Any]) -> str:
    """JSON with characters that could control a terminal escaped, as JSON escapes them."""
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    return "".join(c if c == "\n" or is_harmless(c) else json.dumps(c)[1:-1] for c in text)


def print_error(text: str) -> None:
    """One message on standard error; in the log if the log is JSON."""
    if logs.current().json:
        log.error("%s", text)
    else:
        with suppress(OSError):
            sys.stderr.write(safe(f"error: {text}\n"))


@contextmanager
def stage(text: str) -> Iterator[Callable[[str], None]]:
    """What a command is at and for how long, at a terminal and while it lasts. Nothing elsewhere.

    Yields a function that says how far it is.
    """
    if not (console := logs.terminal()).is_terminal:
        yield lambda progress: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(safe(text), total=None)
        yield lambda how_far: progress.update(task, description=safe(f"{text}: {how_far}"))


def watch_until_complete(read: Callable[[], dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> None:
    """Draws the fields again and again until they are complete. Ctrl-C ends this without an error."""
    from rich.live import Live
    from rich.text import Text

    live = Live(console=PipedConsole(), auto_refresh=False)
    with quiet_when_closed(), suppress(KeyboardInterrupt), live:
        while True:
            started = time.monotonic()
            fields = read()
            live.update(Text(safe(text(fields))), refresh=True)
            if fields["complete"]:
                return
            time.sleep(max(_WATCH_SECONDS, _WATCH_SHARE * (time.monotonic() - started)))


class PipedConsole(Console):
    """A console that raises BrokenPipeError when its reader leaves, as `head` does, and does not exit."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@contextmanager
def quiet_when_closed() -> Iterator[None]:
    """For output that may be piped into `head`: the command ends silently, as other programs do."""
    try:
        with _standard_output():
            yield
    except BrokenPipeError as exc:
        raise typer.Exit(_CLOSED_PIPE) from exc


def paged(console: Console) -> AbstractContextManager[object]:
    """A pager, if the user sits at a terminal. `less` shows colours, and exits if all fits on the screen."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return nullcontext()
    os.environ.setdefault("LESS", "-RFX")
    return console.pager(styles=True)
