"""The commands that turn a build into something for others: report, export, push."""

import webbrowser
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from magpie_ray.cli.options import Output, PricePerGpuHour, StorageOption, storage_at
from magpie_ray.cli.printing import out, quiet_when_closed, stage
from magpie_ray.cli.views.results import pushed_text
from magpie_ray.types import ExportFormat
from magpie_ray.utils import logs
from magpie_ray.utils.logs import LogStyle


def report(
    output: Output,
    price_per_gpu_hour: PricePerGpuHour = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report to this file, and nothing to OUTPUT."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    storage_option: StorageOption = None,
) -> None:
    """Rewrite a build's report, _magpie/report.html, and its dataset card, README.md."""
    from magpie_ray.publish.card import write_card
    from magpie_ray.publish.report.report import write_report

    storage = storage_at(output, storage_option)
    if show and to is None and "://" in storage.url:
        raise typer.BadParameter("a browser opens only files: give --to FILE as well", param_hint="--open")
    with stage(f"reading {storage.url} and drawing its charts"):
        written = write_report(storage, price=price_per_gpu_hour, to=to)
    out(written.location)
    if to is None:
        out(write_card(storage))
    if show:
        webbrowser.open(Path(written.location).absolute().as_uri())


def export(
    output: Output,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="File or fsspec URL: .jsonl, .jsonl.zst, .parquet; - is standard output."
        ),
    ],
    to: Annotated[ExportFormat, typer.Option(metavar="FORMAT", help="messages, sharegpt or alpaca.")],
    system_prompts: Annotated[
        bool, typer.Option("--system-prompts", help="Include the system prompts that generated the rows.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    storage_option: StorageOption = None,
) -> None:
    """Write a build's rows in a format for training programs."""
    from magpie_ray.dataset.manifest import is_marked_complete
    from magpie_ray.publish.export import STDOUT
    from magpie_ray.publish.export import export as write

    storage = storage_at(output, storage_option)
    with quiet_when_closed(), nullcontext() if destination == STDOUT else stage(f"writing {destination}"):
        rows = write(storage, to, destination, system_prompts=system_prompts, force=force)
    if destination != STDOUT:
        so_far = "" if is_marked_complete(storage) else ": all rows so far, the build is not complete"
        out(f"{rows:,} rows in {destination}{so_far}")


def push(
    output: Output,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the Hugging Face hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Push to a public repository; a new one is private otherwise.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Push to this branch; it is created if missing.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Push the rows so far of an incomplete build.")
    ] = False,
    with_report: Annotated[
        bool, typer.Option("--report", help="Also push the report, _magpie/report.html.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete data of other builds in the repository.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and change nothing.")
    ] = False,
    storage_option: StorageOption = None,
) -> None:
    """Push a build to the Hugging Face hub. The same command again sends only what is missing."""
    logs.set_up(LogStyle())
    storage = storage_at(output, storage_option)
    from magpie_ray.publish.hub import Hub
    from magpie_ray.publish.push import push as send

    pushed = send(
        storage,
        Hub(repo_id, revision=revision),
        public=public,
        partial=partial,
        report=with_report,
        replace=replace,
        dry_run=dry_run,
    )
    out(pushed_text(pushed, dry_run=dry_run))
