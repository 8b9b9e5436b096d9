"""The entry point: arguments in, text or JSON out, a failure as one message and an exit code.

Exit codes: 0 done, 1 the work failed, 2 bad usage or config, 3 interrupted and resumable.
"""

import importlib.metadata
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from magpie_ray.cli.building import answer, any_job, generate, plan, preview, score, template
from magpie_ray.cli.curating import dedupe, select
from magpie_ray.cli.help import EXIT_CODES, GroupedCommands, closing
from magpie_ray.cli.init import init
from magpie_ray.cli.printing import open_standard_streams, out, print_error
from magpie_ray.cli.publishing import export, push, report
from magpie_ray.cli.reading import show, status, verify
from magpie_ray.errors import InterruptedJobError, MagpieError, PreflightError
from magpie_ray.utils import logs
from magpie_ray.utils.background import still_waits
from magpie_ray.utils.limits import limits_told
from magpie_ray.utils.process_end import Guard

app = typer.Typer(
    name="magpie-ray",
    cls=GroupedCommands,
    epilog=f"magpie-ray COMMAND -h shows examples.\n\n\b\n{EXIT_CODES}",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help tables show a value for flags that take none
)

# The exit code that typer gives to Ctrl-C.
_TYPER_INTERRUPTED = 130


def _print_version(wanted: bool) -> None:
    if wanted:
        out(importlib.metadata.version("magpie-ray"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Build Magpie datasets: a chat model writes instructions and answers, on Ray and vLLM."""
    try:
        os.getcwd()
    except FileNotFoundError as exc:
        raise PreflightError(
            "the current directory was removed: change to another one, then try again"
        ) from exc


_GROUPS = {
    "Build": (init, plan, preview, generate, template),
    "Go over a data set with another model": (answer, score),
    "Read": (status, verify, show),
    "Make a training set": (dedupe, select, export),
    "Publish": (report, push),
}
for group, commands in _GROUPS.items():
    for command in commands:
        app.command(rich_help_panel=group, epilog=closing(command.__name__))(command)
app.command(hidden=True)(any_job)  # of jobs/generate.py, with which launch files run any config


def main() -> None:
    """Entry point of the `magpie-ray` command and of jobs/generate.py."""
    open_standard_streams()
    # A closed terminal is like Ctrl-C, unless nohup has it ignored; the driver has its own handlers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    guard = Guard(_say_at_last)
    with guard.watching():
        code = _run()
        guard.note_end(code)
    if still_waits():  # the interpreter's own exit would wait, too
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _say_at_last(text: str) -> None:
    logs.terminal().show_cursor()  # the progress display hides it
    print_error(text)


def _run() -> int:
    """The command that the arguments ask for; its exit code."""
    try:
        with limits_told():
            app(prog_name="magpie-ray")
    except MagpieError as exc:
        print_error(str(exc))
        return exc.exit_code
    except SystemExit as exc:
        if exc.code != _TYPER_INTERRUPTED:
            return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        print_error("interrupted: committed rows are kept, and the same command resumes")
        return InterruptedJobError.exit_code
    return 0
