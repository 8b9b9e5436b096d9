"""What the tests of the launch files share: where they are, and what an entrypoint would run."""

import shlex
from pathlib import Path

import typer.main

from magpie_ray.cli.program import app
from magpie_ray.config.loading import JOBS
from magpie_ray.config.ready import find_config
from tests.support.paths import ROOT

IMAGE_FOLDER = "/home/ray/magpie_ray/"  # WORKDIR of the Dockerfile


def config_at(name: str) -> Path:
    """The config that a command in the root of the repository takes."""
    return ROOT / name if "/" in name or name.endswith(".yaml") else find_config(name)


def entrypoint_of(command: str) -> tuple[Path, list[str]]:
    """The config file and the overrides of a command that runs a job, as the command line itself reads them.

    `magpie-ray generate CONFIG ...`, also answer or score, or `python jobs/generate.py CONFIG ...`. A path
    inside the image is the repository's, as the image holds a copy; a bare name is a ready config.
    click.UsageError for an option that the command does not have.
    """
    words = [word.removeprefix(IMAGE_FOLDER) for word in shlex.split(command)]
    assert (ROOT / "jobs/generate.py").is_file()
    job = "job" if words[:2] == ["python", "jobs/generate.py"] else words[1]
    assert job == "job" or (words[0] == "magpie-ray" and job in JOBS), command
    given = typer.main.get_command(app).commands[job].make_context(job, words[2:]).params  # type: ignore[attr-defined]
    path = config_at(str(given["config"]))
    assert path.is_file(), path
    return path, list(given["overrides"] or ())
