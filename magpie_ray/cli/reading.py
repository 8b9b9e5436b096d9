"""The commands that read a build: status, verify, show."""

from contextlib import nullcontext
from typing import Annotated

import typer

from magpie_ray.cli.options import AsJson, Output, StorageOption, storage_at
from magpie_ray.cli.printing import (
    PipedConsole,
    json_text,
    out,
    paged,
    quiet_when_closed,
    show_fields,
    stage,
    watch_until_complete,
)
from magpie_ray.cli.views.results import verification_fields, verification_text

_SHOWN_ROWS = 3


def status(
    output: Output,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh until the build is complete or Ctrl-C.")
    ] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Show a build's progress and speed, and whether a driver is at work. Reads storage only."""
    from magpie_ray.cli.views.status import status_fields, status_text
    from magpie_ray.monitoring.status import read_status

    storage = storage_at(output, storage_option)
    if watch and as_json:
        raise typer.BadParameter(
            "--watch is for people; a program runs `status --json` again", param_hint="--watch with --json"
        )
    if watch:
        watch_until_complete(lambda: status_fields(read_status(storage)), status_text)
    else:
        with stage(f"reading {storage.url}"):
            fields = status_fields(read_status(storage))
        show_fields(fields, as_json=as_json, text=status_text)


def verify(
    output: Output,
    quick: Annotated[bool, typer.Option("--quick", help="Read only footers: no hashes, no pages.")] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a build. The exit code is 0 when it is complete and consistent, otherwise 1."""
    from magpie_ray.dataset.verify import verify as check

    storage = storage_at(output, storage_option)
    with stage(f"reading {'the footers' if quick else 'every byte'} of {storage.url}"):
        verification = check(storage, quick=quick)
    fields = verification_fields(verification)
    out(json_text(fields) if as_json else verification_text(fields))
    if not verification.ok:
        raise typer.Exit(1)


def show(
    output: Output,
    rows: Annotated[
        int | None,
        typer.Option("--rows", "-n", min=1, help="Number of rows, or of rejects per reason; 3 by default."),
    ] = None,
    row: Annotated[
        int | None, typer.Option(metavar="ID", min=0, help="Show this row; with -n, the rows from it on.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Only such rows, e.g. attempt=2; may be repeated, all must hold."
        ),
    ] = None,
    rejects: Annotated[
        bool, typer.Option("--rejects", help="Show rejected messages, and why they were rejected.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only messages rejected for this reason.")
    ] = None,
    pager: Annotated[bool, typer.Option("--pager/--no-pager", help="Use a pager in a terminal.")] = True,
    storage_option: StorageOption = None,
) -> None:
    """Read conversations, or rejected messages, in the terminal."""
    from magpie_ray.cli.views.rows import reject_panel, row_panel
    from magpie_ray.dataset.build_record import require_build
    from magpie_ray.dataset.reader import parse_conditions, select_rows
    from magpie_ray.dataset.rejects import REJECT_FIELDS, select_rejects

    storage = storage_at(output, storage_option)
    record = require_build(storage)
    with quiet_when_closed():
        if rejects or reason:
            typed = [*(where or ()), *([] if row is None else [f"row_id={row}"])]
            conditions = parse_conditions(typed, REJECT_FIELDS)
            selected = select_rejects(
                storage, lambda reject: all(c.holds(reject) for c in conditions), rows or _SHOWN_ROWS, reason
            )
            panels = map(reject_panel, selected)
        else:
            conditions = parse_conditions(where or (), record.columns)
            limit = rows or (_SHOWN_ROWS if row is None else None)
            panels = map(row_panel, select_rows(storage, conditions, limit=limit, row=row))
        console = PipedConsole()
        is_empty = True
        with paged(console) if pager else nullcontext():
            for panel in panels:
                console.print(panel)
                is_empty = False
        if is_empty:
            out(f"{storage.url} has no {'rejects' if rejects or reason else 'rows'} like that.")
