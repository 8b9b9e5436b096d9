"""The commands that read a build: status, verify, show."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from magpie_ray.cli.options import AsJson, Output, StorageOption, Where, storage_at
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

if TYPE_CHECKING:
    from magpie_ray.dataset.reader import Record
    from magpie_ray.dataset.rejects import Reject
    from magpie_ray.storage.storage import Storage

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
    where: Where = None,
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

    storage = storage_at(output, storage_option)
    require_build(storage)
    with quiet_when_closed():
        if rejects or reason:
            panels = map(reject_panel, _rejects(storage, rows or _SHOWN_ROWS, reason, row, where))
        else:
            limit = rows or (_SHOWN_ROWS if row is None else None)
            panels = map(row_panel, _rows(storage, limit, row, where))
        console = PipedConsole()
        is_empty = True
        with paged(console) if pager else nullcontext():
            for panel in panels:
                console.print(panel)
                is_empty = False
        if is_empty:
            out(f"{storage.url} has no {'rejects' if rejects or reason else 'rows'} like that.")


def _rows(storage: "Storage", limit: int | None, row: int | None, where: str | None) -> "Iterator[Record]":
    """limit: None for the row alone."""
    if where is None:
        from magpie_ray.dataset.reader import select_rows

        return select_rows(storage, limit=limit, row=row)
    from magpie_ray.curation.where import rows_where

    return rows_where(
        storage, where, first_row=row or 0, last_row=row if limit is None else None, limit=limit
    )


def _rejects(
    storage: "Storage", per_reason: int, reason: str | None, row: int | None, where: str | None
) -> "list[Reject]":
    from magpie_ray.dataset.rejects import select_rejects

    if where is None:
        return select_rejects(storage, per_reason, reason=reason, row=row)
    from magpie_ray.curation.where import rejects_where

    return select_rejects(
        storage, per_reason, reason=reason, row=row, where=lambda rejects: rejects_where(rejects, where)
    )
