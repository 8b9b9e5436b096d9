"""Arguments and options that several commands share, and what they stand for: a config, a build's storage."""

import glob
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magpie_ray.config.loading import JOBS, JobConfig, load_as, load_job
from magpie_ray.config.problems import dotted
from magpie_ray.config.ready import ready_names
from magpie_ray.config.source import read_overrides
from magpie_ray.errors import ConfigError
from magpie_ray.utils.redaction import secret_leaves

if TYPE_CHECKING:
    from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)


def complete_config(incomplete: str) -> list[str]:
    """Ready configs and, as the shell does where none fits, files and folders here that begin like this."""
    ready = complete_ready(incomplete)
    return [*ready, *sorted(map(str, Path().glob(f"{glob.escape(incomplete)}*")))] if ready else []


def complete_ready(incomplete: str) -> list[str]:
    """The names of ready configs that begin like this."""
    return [name for name in ready_names() if name.startswith(incomplete)]


ConfigPath = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file, or a ready config (magpie-ray init lists them). -: standard input.",
        show_default=False,
        autocompletion=complete_config,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Override a config key, e.g. num_rows=105 model.revision=main."),
]
Output = Annotated[
    str, typer.Argument(metavar="OUTPUT", help="A build's output.path: a folder or an fsspec URL.")
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="One of output.storage_options, e.g. endpoint_url=http://minio:9000; may be repeated. "
        "Put credentials in the environment (AWS_ACCESS_KEY_ID, ...): others can see a command line.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="Only rows for which this SQL condition holds: \"attempt > 1 AND response LIKE '%sorry%'\".",
    ),
]
PricePerGpuHour = Annotated[
    float | None, typer.Option(metavar="N", min=0, help="Price of one GPU for an hour, in any currency.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def load(path: Path, overrides: list[str] | None, job: str | None = None) -> JobConfig:
    """A config, with a warning for each secret on the command line. job: the command it is for; None: any."""
    config = load_as(JOBS[job], path, overrides or ()) if job else load_job(path, overrides or ())
    for key, _ in secret_leaves(read_overrides(overrides or ())):
        log.warning(
            "%s is on the command line, where others can read it: in the process list and, for a submitted "
            "job, in Ray's metadata. Set it in the environment, or in a YAML file that only you can read",
            dotted(key),
        )
    return config


def storage_at(url: str, options: list[str] | None) -> "Storage":
    """A build's storage, opened with --storage-option; `latest` stands for a schedule's newest build."""
    from magpie_ray.dataset.schedule import follow_latest
    from magpie_ray.storage.storage import READ_SECONDS, Storage  # fsspec takes time to import

    storage_options = read_overrides(options or ())
    url = follow_latest(url, storage_options, retry_seconds=READ_SECONDS)
    return Storage(url, storage_options, retry_seconds=READ_SECONDS)


def parse_seconds(text: str) -> float:
    """A time such as 60s, 5m, 1h or 90, in seconds. Raises ConfigError for any other text."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not match or not (seconds := float(match[1]) * {"m": 60, "h": 3600}.get(match[2], 1)):
        raise ConfigError(f"--sample: got {text!r}, must be a time such as 60s, 5m or 1h")
    return seconds
