"""The command line: arguments in, text or JSON out, errors as one message and an exit code.

Exit codes: 0 done, 1 the work failed, 2 bad usage or config, 3 interrupted and resumable.
"""

import importlib.metadata
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from magpie_ray import logs, views
from magpie_ray.config import Config, load_config
from magpie_ray.config_errors import dotted
from magpie_ray.config_source import read_source
from magpie_ray.errors import ClusterLostError, ConfigError, MagpieError
from magpie_ray.logs import LogStyle
from magpie_ray.plan_view import plan_text
from magpie_ray.redaction import secret_leaves
from magpie_ray.safe_text import safe

if TYPE_CHECKING:
    from magpie_ray.storage import Storage

log = logging.getLogger(__name__)

app = typer.Typer(
    name="magpie-ray",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables show a value where a flag takes none
)

# What typer turns Ctrl-C into.
_TYPER_INTERRUPTED = 130
# How often a watched build is read again; a large one, which takes long to list, more rarely.
_WATCH_SECONDS, _WATCH_SHARE = 5.0, 4
_SHOWN_ROWS = 3
# What a shell says of a program whose reader has left: 128 and the number of SIGPIPE.
_CLOSED_PIPE = 141


class OnExisting(Enum):
    """The choices of --if-exists: magpie_ray.if_exists.IfExists, for typer."""

    RESUME = "resume"
    SKIP = "skip"
    FAIL = "fail"


ConfigPath = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="YAML file; examples are in jobs/configs.", show_default=False),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Set over the file, e.g. num_rows=105 sampling.user.top_p=0.99."
    ),
]
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="A build's output.path: a folder or an fsspec URL.")
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="One of output.storage_options, e.g. endpoint_url=http://minio:9000; may be repeated. "
        "Credentials belong in the environment (AWS_ACCESS_KEY_ID, ...): others can see a command line.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        _out(importlib.metadata.version("magpie-ray"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Build Magpie datasets: a chat model writes instructions and answers, on Ray and vLLM."""


@app.command()
def generate(
    config: ConfigPath,
    overrides: Overrides = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log all that the job, its actors and vLLM do.")
    ] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")] = False,
    if_exists: Annotated[
        OnExisting,
        typer.Option(
            help="A build that is there: go on with it, leave it alone when complete or worked on, or refuse."
        ),
    ] = OnExisting.RESUME,
) -> None:
    """Run, or resume, a build. The same command again goes on where the last one ended."""
    logs.set_up(LogStyle(verbose=verbose, json=json_logs))
    parsed = _load(config, overrides)
    from magpie_ray.driver import generate as run  # Ray takes a second to import

    result = run(parsed, if_exists=if_exists.value)
    if json_logs:
        state = "left alone" if result.left_alone else "complete"
        log.info("the build is %s", state, extra=views.result_fields(result))
    else:
        _out(views.result_text(result))


@app.command()
def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show how the model lies on this GPU, e.g. H100-80GB.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(metavar="N", min=0.001, help="What one engine writes, if you know.")
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Measure: make rows of the build here for so long, e.g. 60s or 5m."
        ),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="In whatever money.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what would run and what it takes: partitions, prompt, memory, time. Writes nothing."""
    began = time.monotonic()
    logs.set_up(LogStyle())
    seconds = None if sample is None else _seconds(sample)
    parsed = _load(config, overrides)
    from magpie_ray.forecast import Given
    from magpie_ray.gpus import find_gpu
    from magpie_ray.planning import make_plan  # tokenizers take seconds to import

    card = None if gpu is None else find_gpu(gpu)
    taken = None
    if seconds is not None:
        from magpie_ray.driver.sample import take_sample  # Ray takes a second to import

        taken = take_sample(parsed, seconds, began=began)
    given = Given(
        gpu=card, tokens_per_second=tokens_per_second, price_per_gpu_hour=price_per_gpu_hour, sample=taken
    )
    _print(make_plan(parsed, given), as_json=as_json, text=plan_text)


@app.command()
def template(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="builtin:tiny-chat, a folder, a Hugging Face id.")
    ],
    system: Annotated[str | None, typer.Option(help="A system prompt to show the prefix with.")] = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking", help="As a build with model.thinking: true, or false, has it."
        ),
    ] = None,
    own_format: Annotated[
        str | None,
        typer.Option(
            "--chat-format", metavar="MODULE:NAME", help="Your own function, as in model.chat_format."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of the model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own Python code run on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the chat format derived from a model's tokenizer."""
    from magpie_ray.describing import make_template  # tokenizers take seconds to import

    described = make_template(
        model,
        system=system,
        thinking=thinking,
        own_format=own_format,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    _print(described, as_json=as_json, text=views.template_text)


@app.command()
def status(
    output: Output,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again and again until Ctrl-C.")
    ] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a build is, how fast, and whether it is at work: from anywhere, by its storage alone."""
    from magpie_ray.status import read_status
    from magpie_ray.status_view import status_fields, status_text

    storage = _storage(output, storage_option)
    if watch and as_json:
        raise typer.BadParameter(
            "it is for people; other programs ask again", param_hint="--watch with --json"
        )
    if not watch:
        _print(status_fields(read_status(storage)), as_json=as_json, text=status_text)
        return
    _watch(lambda: status_fields(read_status(storage)), status_text)


@app.command()
def verify(
    output: Output,
    quick: Annotated[bool, typer.Option("--quick", help="Read footers only, not every page.")] = False,
    storage_option: StorageOption = None,
    as_json: AsJson = False,
) -> None:
    """Check a build. Exit code 0 when it is complete and consistent, else 1 and why."""
    from magpie_ray.verify import verify as check

    found = check(_storage(output, storage_option), quick=quick)
    _print(views.verification_fields(found), as_json=as_json, text=views.verification_text)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
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
    from magpie_ray.rejects import REJECT_FIELDS, select_rejects
    from magpie_ray.row_view import PipedConsole, reject_panel, row_panel
    from magpie_ray.verify import require_build
    from magpie_ray.where import parse_conditions, select_rows

    storage = _storage(output, storage_option)
    record = require_build(storage)
    with _quiet_when_closed():
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
        with _paged(console) if pager else nullcontext():
            for panel in panels:
                console.print(panel)
                nothing = False
        if nothing:
            _out(f"{storage.url} has no {'rejects' if rejects or reason else 'rows'} like that yet.")


@app.command()
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
    from magpie_ray.card import write_card
    from magpie_ray.report import write_report

    storage = _storage(output, storage_option)
    _out(write_report(storage, price=price_per_gpu_hour))
    _out(write_card(storage))


@app.command()
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
    from magpie_ray.export import STDOUT
    from magpie_ray.export import export as write

    with _quiet_when_closed():
        rows = write(
            _storage(output, storage_option), to, destination, system_prompts=system_prompts, force=force
        )
    if destination != STDOUT:
        _out(f"{rows:,} rows in {destination}")


@app.command()
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
    storage = _storage(output, storage_option)
    from magpie_ray.hub import Hub
    from magpie_ray.push import push as send

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
    _out(views.pushed_text(done, dry_run=dry_run))


def main() -> None:
    """Entry point of the `magpie-ray` command and of jobs/generate.py."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C; the driver has its own
    try:
        app(prog_name="magpie-ray")
    except MagpieError as exc:
        _tell_error(str(exc))
        if isinstance(exc, ClusterLostError):
            sys.stderr.flush()
            os._exit(exc.exit_code)  # Ray's own clean-up would wait for the head that is gone
        sys.exit(exc.exit_code)
    except SystemExit as exc:
        if exc.code != _TYPER_INTERRUPTED:
            raise
        _tell_error("interrupted; what is committed stays, the same command goes on")
        sys.exit(3)


def _watch(read: Callable[[], dict[str, Any]], text: Callable[[dict[str, Any]], str]) -> None:
    """Draws what is read until it is complete, or until Ctrl-C, which is no failure here."""
    from rich.live import Live
    from rich.text import Text

    with suppress(KeyboardInterrupt), Live(auto_refresh=False) as live:
        while True:
            started = time.monotonic()
            fields = read()
            live.update(Text(safe(text(fields))), refresh=True)
            if fields["complete"]:
                return
            time.sleep(max(_WATCH_SECONDS, _WATCH_SHARE * (time.monotonic() - started)))


@contextmanager
def _quiet_when_closed() -> Iterator[None]:
    """For what may be piped into `head`: it ends without a word, as other programs do."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered goes nowhere
        raise typer.Exit(_CLOSED_PIPE) from exc


def _paged(console: Console) -> AbstractContextManager[object]:
    """A pager where somebody sits at a terminal; `less` shows colours, and ends where all fits the screen."""
    if not (console.is_terminal and sys.stdin.isatty()):
        return nullcontext()
    os.environ.setdefault("LESS", "-RFX")
    return console.pager(styles=True)


def _tell_error(text: str) -> None:
    if logs.current().json:
        log.error("%s", text)
    else:
        sys.stderr.write(safe(f"error: {text}\n"))


def _seconds(text: str) -> float:
    """A time such as 60s, 5m, 1h or 90."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or not (seconds := float(found[1]) * {"m": 60, "h": 3600}.get(found[2], 1)):
        raise ConfigError(f"--sample: got {text!r}, must be a time such as 60s, 5m or 1h")
    return seconds


def _load(path: Path, overrides: list[str] | None) -> Config:
    """The config, with a warning for each secret that stands on the command line."""
    config = load_config(path, overrides or ())
    given = {str(name): value for name, value in read_source(None, overrides or ()).items()}
    for key, _ in secret_leaves(given):
        log.warning(
            "%s is given on the command line, which others can read: in the process list, and of a submitted "
            "job in Ray's metadata. Give it in the environment, or in a YAML file that only you can read",
            dotted(key),
        )
    return config


def _storage(url: str, options: list[str] | None) -> "Storage":
    from magpie_ray.latest import follow
    from magpie_ray.storage import READ_SECONDS, Storage  # fsspec takes time to import

    given = {str(name): value for name, value in read_source(None, options or ()).items()}
    return Storage(follow(url, given, retry_seconds=READ_SECONDS), given, retry_seconds=READ_SECONDS)


def _print(fields: dict[str, Any], *, as_json: bool, text: Callable[[dict[str, Any]], str]) -> None:
    _out(views.json_text(fields) if as_json else text(fields))


def _out(text: str) -> None:
    sys.stdout.write(safe(text) + "\n")
