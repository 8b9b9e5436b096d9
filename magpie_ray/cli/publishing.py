"""The commands that make something of a build for others: report, export, push."""

from typing import Annotated, Literal

import typer

from magpie_ray.cli.options import Output, StorageOption, storage_at
from magpie_ray.cli.printing import out, quiet_when_closed
from magpie_ray.cli.views import results
from magpie_ray.utils import logs
from magpie_ray.utils.logs import LogStyle


def report(
    output: Output,
    price_per_gpu_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-gpu-hour", metavar="X", min=0, help="In any money: the report tells what rows cost."
        ),
    ] = None,
    storage_option: StorageOption = None,
) -> None:
    """Make the report of a build again, _magpie/report.html, and its dataset card, README.md."""
    from magpie_ray.publish.card import write_card
    from magpie_ray.publish.report.report import write_report

    storage = storage_at(output, storage_option)
    out(write_report(storage, price=price_per_gpu_hour))
    out(write_card(storage))


def export(
    output: Output,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="File or fsspec URL, e.g. rows.jsonl.zst; - for standard output."
        ),
    ],
    to: Annotated[
        Literal["messages", "sharegpt", "alpaca"],
        typer.Option("--to", metavar="FORMAT", help="messages, sharegpt or alpaca, as JSON lines."),
    ],
    system_prompts: Annotated[
        bool,
        typer.Option("--system-prompts", help="Write the system prompts that rows were generated under."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    storage_option: StorageOption = None,
) -> None:
    """Write a build's rows in a format that training programs read."""
    from magpie_ray.dataset.manifest import is_marked_complete
    from magpie_ray.publish.export import STDOUT
    from magpie_ray.publish.export import export as write

    storage = storage_at(output, storage_option)
    with quiet_when_closed():
        rows = write(storage, to, destination, system_prompts=system_prompts, force=force)
    if destination != STDOUT:
        so_far = (
            "" if is_marked_complete(storage) else ": all that there are so far, as the build is not complete"
        )
        out(f"{rows:,} rows in {destination}{so_far}")


def push(
    output: Output,
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="OWNER/NAME on the Hugging Face hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Open to all; a new repository is private otherwise.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Push to this branch, made if need be.")
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Push what there is of a build that is not complete.")
    ] = False,
    with_report: Annotated[
        bool, typer.Option("--report", help="Push the report, _magpie/report.html, too.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete data of other builds that is there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be sent, and change nothing.")
    ] = False,
    storage_option: StorageOption = None,
) -> None:
    """Put a build on the Hugging Face hub. The same command again sends only what is missing there."""
    logs.set_up(LogStyle())
    storage = storage_at(output, storage_option)
    from magpie_ray.publish.hub import Hub
    from magpie_ray.publish.push import push as send

    hub = Hub(repo_id, revision=revision)
    done = send(
        storage,
        hub,
        public=public,
        partial=partial,
        report=with_report,
        replace=replace,
        dry_run=dry_run,
    )
    out(results.pushed_text(done, dry_run=dry_run))
