"""The entry point: arguments in, text or JSON out, a failure as one message and an exit code.

Exit codes: 0 done, 1 the work failed, 2 bad usage or config, 3 interrupted and resumable.
"""

import importlib.metadata
import os
import signal
import sys
from typing import Annotated

import typer

from magpie_ray.cli.building import generate, plan, template
from magpie_ray.cli.printing import out, print_error
from magpie_ray.cli.publishing import export, push, report
from magpie_ray.cli.reading import show, status, verify
from magpie_ray.errors import ClusterLostError, MagpieError

app = typer.Typer(
    name="magpie-ray",
    no_args_is_help=True,
    add_completion=False,
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


for command in (generate, plan, template, status, verify, show, report, export, push):
    app.command()(command)


def main() -> None:
    """Entry point of the `magpie-ray` command and of jobs/generate.py."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C; the driver has its own handler
    try:
        app(prog_name="magpie-ray")
    except MagpieError as exc:
        print_error(str(exc))
        if isinstance(exc, ClusterLostError):
            sys.stderr.flush()
            os._exit(exc.exit_code)  # Ray's own clean-up would wait for the lost head
        sys.exit(exc.exit_code)
    except SystemExit as exc:
        if exc.code != _TYPER_INTERRUPTED:
            raise
        print_error("interrupted: committed rows are kept, and the same command resumes")
        sys.exit(3)
