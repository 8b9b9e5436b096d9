"""The commands that turn a build into something for others: report, export, push."""

import webbrowser
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magpie_ray.cli.options import AsJson, Output, PricePerGpuHour, StorageOption, Where, storage_at
from magpie_ray.cli.printing import out, quiet_when_closed, show_fields, stage
from magpie_ray.cli.views.curation import pairs_text
from magpie_ray.cli.views.results import pushed_text, report_fields, report_text
from magpie_ray.types import ExportFormat, Pairing
from magpie_ray.utils import logs
from magpie_ray.utils.logs import LogStyle
from magpie_ray.utils.text import counted

if TYPE_CHECKING:
    from magpie_ray.dataset.reader import Record
    from magpie_ray.publish.preference import PairSpec
    from magpie_ray.storage.storage import Storage


def report(
    output: Output,
    price_per_gpu_hour: PricePerGpuHour = None,
    to: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the report to this file, and nothing to OUTPUT."),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    as_json: AsJson = False,
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
    card = write_card(storage) if to is None else None
    show_fields(report_fields(written, card), as_json=as_json, text=report_text)
    if show:
        webbrowser.open(Path(written.location).absolute().as_uri())


Destination = Annotated[
    str,
    typer.Argument(
        metavar="DEST", help="File or fsspec URL: .jsonl, .jsonl.zst, .parquet; - is standard output."
    ),
]
Format = Annotated[
    ExportFormat, typer.Option(metavar="FORMAT", help="messages, sharegpt, alpaca or preference.")
]
SystemPrompts = Annotated[
    bool, typer.Option("--system-prompts", help="Include the system prompts that generated the rows.")
]
Pairs = Annotated[Pairing, typer.Option(metavar="PAIRS", help="Of preference: best-worst or best-random.")]
Margin = Annotated[
    float, typer.Option(metavar="N", min=0, help="Of preference: the least difference of two rewards.")
]
Rewards = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Of preference: the rewards; instruct_reward.")
]
Scores = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="Of preference: the data set that has the rewards, by row_id."),
]
TestShare = Annotated[
    float,
    typer.Option(metavar="SHARE", min=0, max=0.5, help="Of preference: rows for DEST with .test, e.g. 0.02."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")]


def export(
    output: Output,
    destination: Destination,
    to: Format,
    where: Where = None,
    system_prompts: SystemPrompts = False,
    pairs: Pairs = "best-worst",
    margin: Margin = 0.0,
    rewards: Rewards = None,
    scores: Scores = None,
    test_share: TestShare = 0.0,
    force: Force = False,
    storage_option: StorageOption = None,
) -> None:
    """Write the rows of a data set in a format for training programs."""
    from magpie_ray.dataset.manifest import is_marked_complete
    from magpie_ray.publish.export import export as write
    from magpie_ray.publish.export_file import STDOUT
    from magpie_ray.publish.preference import PairSpec

    storage = storage_at(output, storage_option)
    asks_for_pairs = (rewards, scores, margin, test_share, pairs) != (None, None, 0, 0, "best-worst")
    if to != "preference" and asks_for_pairs:
        raise typer.BadParameter(
            "--pairs, --margin, --rewards, --scores and --test-share go with preference", param_hint="--to"
        )
    with quiet_when_closed(), nullcontext() if destination == STDOUT else stage(f"writing {destination}"):
        rows = None if where is None else _rows_where(storage, where)
        if to == "preference":
            spec = PairSpec(
                pairing=pairs, margin=margin, test_share=test_share, system_prompts=system_prompts
            )
            scored = storage_at(scores, storage_option) if scores else None
            written = _write_pairs(storage, scored, rewards, rows, destination, spec, force=force)
        else:
            count = write(storage, to, destination, rows=rows, system_prompts=system_prompts, force=force)
            written = f"{counted(count, 'row')} in {destination}"
    if destination != STDOUT:
        so_far = (
            "" if is_marked_complete(storage) else "\nThese are all rows so far: the build is not complete"
        )
        out(f"{written}{so_far}")


def _rows_where(storage: "Storage", where: str) -> "Iterator[Record]":
    from magpie_ray.curation.where import rows_where

    return rows_where(storage, where)


def _write_pairs(
    storage: "Storage",
    scored: "Storage | None",
    rewards: str | None,
    rows: "Iterator[Record] | None",
    destination: str,
    spec: "PairSpec",
    *,
    force: bool,
) -> str:
    """The preference pairs of a data set, whose rewards may lie in another one; what was written."""
    from magpie_ray.dataset.build_record import require_build
    from magpie_ray.dataset.reader import read_rows
    from magpie_ray.publish import preference

    preference.check_answers(require_build(storage).schema, of=storage.url)
    rewarding = scored or storage
    column = preference.rewards_column(require_build(rewarding).schema, rewards, of=rewarding.url)
    rewarded = preference.with_rewards(
        read_rows(storage) if rows is None else rows, column, read_rows(scored) if scored else None
    )
    return pairs_text(preference.export_pairs(rewarded, destination, spec, force=force), destination)


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
