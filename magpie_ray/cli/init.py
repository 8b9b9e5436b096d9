"""The command that a user begins with: init."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from magpie_ray.cli.options import complete_ready
from magpie_ray.cli.printing import out
from magpie_ray.cli.views.results import ready_text
from magpie_ray.config.ready import find_ready, ready_names, write_copy


def init(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A ready config. Without one: list them.",
            show_default=False,
            autocompletion=complete_ready,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="The file to write, or a folder; ./NAME.yaml by default.", show_default=False
        ),
    ] = None,
) -> None:
    """Write a ready config into a file of your own, to plan, change and run."""
    if name is None:
        out(ready_text([find_ready(each) for each in ready_names()]))
        return
    written = write_copy(find_ready(name.removesuffix(".yaml")), file)
    out(f"{' and '.join(map(str, written))}: written\nnext: magpie-ray plan {shlex.quote(str(written[0]))}")
