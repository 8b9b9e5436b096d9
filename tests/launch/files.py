"""What the tests of the launch files share: where they are, and what an entrypoint would run."""

import shlex
from pathlib import Path

from typer.testing import CliRunner

from magpie_ray.cli import app

ROOT = Path(__file__).resolve().parents[2]
IMAGE_FOLDER = "/home/ray/magpie_ray/"  # WORKDIR of the Dockerfile


def entrypoint_of(command: str) -> tuple[Path, list[str], list[str]]:
    """The config file, the overrides and the options of a command that generates.

    `magpie-ray generate CONFIG ...` or `python jobs/generate.py CONFIG ...`. A path inside the image is the
    repository's, as the image holds a copy.
    """
    words = shlex.split(command)
    if words[:2] == ["magpie-ray", "generate"]:
        rest = words[2:]
    else:
        assert words[0] == "python", command
        assert words[1] == "jobs/generate.py", command
        rest = words[2:]
    options = [word for at, word in enumerate(rest) if word.startswith("--") or rest[at - 1].startswith("--")]
    plain = [word for word in rest if word not in options]
    path = ROOT / plain[0].removeprefix(IMAGE_FOLDER)
    assert path.is_file(), path
    assert (ROOT / "jobs/generate.py").is_file()
    return path, plain[1:], options


def check_options(options: list[str]) -> None:
    """`generate` has these options. The command itself is not run."""
    shown = CliRunner().invoke(app, ["generate", "--help"], terminal_width=200).output
    for option in options:
        assert not option.startswith("--") or option in shown, f"generate has no {option}"
