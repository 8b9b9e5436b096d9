"""The commands that look at a build: status, verify, show."""

from contextlib import nullcontext
from typing import Annotated

import typer

from magpie_ray.cli.options import AsJson, Output, StorageOption, storage_at
from magpie_ray.cli.printing import out, paged, quiet_when_closed, show_fields, watch_until_complete
from magpie_ray.cli.views import results

_SHOWN_ROWS = 3


def status(
    output: Output,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again until Ctrl-C.")
    ] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a build is, how fast, and whether it is at work: from anywhere, by its storage alone."""
    from magpie_ray.cli.views.status import status_fields, status_text
    from magpie_ray.monitoring.status import read_status

    storage = storage_at(output, storage_option)
    if watch and as_json:
        raise typer.BadParameter(
            "it is for people; other programs ask again", param_hint="--watch with --json"
        )
    if not watch:
        show_fields(status_fields(read_status(storage)), as_json=as_json, text=status_text)
        return
    watch_until_complete(lambda: status_fields(read_status(storage)), status_text)


def verify(
    output: Output,
    quick: Annotated[bool, typer.Option("--quick", help="Read footers only, not every page.")] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a build. Exit code 0 when it is complete and consistent, else 1 and why."""
    from magpie_ray.dataset.verify import verify as check

    found = check(storage_at(output, storage_option), quick=quick)
    show_fields(results.verification_fields(found), as_json=as_json, text=results.verification_text)
    if not found.ok:
        raise typer.Exit(1)


def show(
    output: Output,
    rows: Annotated[
        int | None,
        typer.Option("--rows", "-n", min=1, help="How many rows, or rejects of each reason: 3 unless given."),
    ] = None,
    row: Annotated[
        int | None, typer.Option("--row", metavar="ID", min=0, help="This row; with -n the rows from it on.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN=VALUE", help="Only such rows, e.g. attempt=2; may be repeated, all must hold."
        ),
    ] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show what was thrown away, and why.")] = False,
    reason: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only what was thrown away for this reason.")
    ] = None,
    pager: Annotated[bool, typer.Option("--pager/--no-pager", help="Page through it, in a terminal.")] = True,
    storage_option: StorageOption = None,
) -> None:
    """Read conversations in the terminal, or what was rejected."""
    from magpie_ray.cli.views.rows import PipedConsole, reject_panel, row_panel
    from magpie_ray.dataset.build_record import require_build
    from magpie_ray.dataset.reader import parse_conditions, select_rows
    from magpie_ray.dataset.rejects import REJECT_FIELDS, select_rejects

    storage = storage_at(output, storage_option)
    record = require_build(storage)
    with quiet_when_closed():
        if rejects or reason:
            typed = [*(where or ()), *([] if row is None else [f"row_id={row}"])]
            conditions = parse_conditions(typed, REJECT_FIELDS)
            found = select_rejects(
                storage, lambda reject: all(c.holds(reject) for c in conditions), rows or _SHOWN_ROWS, reason
            )
            panels = map(reject_panel, found)
        else:
            conditions = parse_conditions(where or (), record.columns)
            limit = rows or (_SHOWN_ROWS if row is None else None)
            panels = map(row_panel, select_rows(storage, conditions, limit=limit, row=row))
        console = PipedConsole()
        nothing = True
        with paged(console) if pager else nullcontext():
            for panel in panels:
                console.print(panel)
                nothing = False
        if nothing:
            out(f"{storage.url} has no {'rejects' if rejects or reason else 'rows'} like that.")
