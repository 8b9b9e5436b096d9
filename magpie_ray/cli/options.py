"""What several commands take, and what it means: a config, a build's storage, a time."""

import logging
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from magpie_ray.config.problems import dotted
from magpie_ray.config.schema import Config, load_config
from magpie_ray.config.source import read_source
from magpie_ray.errors import ConfigError
from magpie_ray.utils.redaction import secret_leaves

if TYPE_CHECKING:
    from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)


class OnExisting(Enum):
    """The choices of --if-exists: magpie_ray.preflight.if_exists.IfExists, for typer."""

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


def load(path: Path, overrides: list[str] | None) -> Config:
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


def storage_at(url: str, options: list[str] | None) -> "Storage":
    """A build's storage, by what the command line says; of `latest`, the build it stands for."""
    from magpie_ray.dataset.schedule import follow
    from magpie_ray.storage.storage import (
        READ_SECONDS,
        Storage,  # fsspec takes time to import
    )

    given = {str(name): value for name, value in read_source(None, options or ()).items()}
    return Storage(follow(url, given, retry_seconds=READ_SECONDS), given, retry_seconds=READ_SECONDS)


def parse_seconds(text: str) -> float:
    """A time such as 60s, 5m, 1h or 90, in seconds. ConfigError for others."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or not (seconds := float(found[1]) * {"m": 60, "h": 3600}.get(found[2], 1)):
        raise ConfigError(f"--sample: got {text!r}, must be a time such as 60s, 5m or 1h")
    return seconds
