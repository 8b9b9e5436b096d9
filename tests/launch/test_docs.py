"""The commands that documents and launch files tell people to run, as far as they go without a cluster.

Of each: the shell's grammar; the options of Ray's, Anyscale's and our own command line; the operations and
parameters of AWS; the paths; and, where a command generates, its config.
"""

import functools
import itertools
import os
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

import boto3
import click
import pytest
import typer.main
from botocore import xform_name
from ray.scripts.scripts import cli as ray

from magpie_ray.cli.program import app
from magpie_ray.config.loading import JOBS, load_job
from tests.launch.files import ROOT, config_at

pytestmark = pytest.mark.slow  # Ray and Anyscale take seconds to import

PACKAGE = ROOT / "magpie_ray"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
LAUNCH_FILES = [
    ROOT / "Dockerfile",
    ROOT / "cluster.yaml",
    *sorted((ROOT / "jobs").glob("*.yaml")),
    *sorted((ROOT / "jobs/kuberay").rglob("*.yaml")),
    *sorted((ROOT / "jobs/anyscale").glob("*.yaml")),
    ROOT / "jobs/skypilot/magpie.yaml",
    ROOT / "jobs/slurm/magpie.sbatch",
]
PROGRAMS = {
    "anyscale",
    "aws",
    "cp",
    "docker",
    "helm",
    "kubectl",
    "magpie-ray",
    "make",
    "mkdir",
    "pip",
    "python",
    "ray",
    "sbatch",
    "scancel",
    "sed",
    "sky",
}
# Words of the shell that may stand before a program.
SHELL = re.compile(r"^(do|export|done|for)\b|^\w+=\S* ")


def blocks(path: Path) -> list[str]:
    """Shell code: fenced in Markdown, indented in the comment that a launch file opens with."""
    text = path.read_text()
    if path.suffix == ".md":
        return re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    opening = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    lines = [line[4:] for line in opening if re.match(r"#   \s*\w", line)]
    joined = "\n".join(lines) + "\n"
    return [joined] if lines and lines[0].split()[0] in PROGRAMS else []


def without_redirections(words: list[str]) -> list[str]:
    """The words without `> FILE` and `2>FILE`; in quotes, > is a part of a word."""
    kept, rest = list[str](), iter(words)
    for word in rest:
        if redirection := re.match(r"\d?>+(\S*)$", word):
            if not redirection[1]:
                next(rest, None)
            continue
        kept.append(word)
    return kept


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command. A comment that follows two spaces, and what is piped away, is left out."""
    for line in block.replace("\\\n", " ").splitlines():
        plain = re.split(r"\s{2,}(?=in another|#|it )", line)[0].strip()
        while (word := SHELL.match(plain)) and not plain.startswith(tuple(PROGRAMS)):
            plain = plain[word.end() :].strip()
        words = without_redirections(shlex.split(plain, comments=True))
        words = list(itertools.takewhile(lambda word: word not in ("|", "&&", "||"), words))
        if words and words[0] in PROGRAMS:
            yield words


def in_prose(path: Path) -> Iterator[list[str]]:
    """Commands of ours inside a sentence, with the words that stand for a name; a bare name is no command."""
    for code in re.findall(r"`((?:magpie-ray|make) [^`\n]+)`", path.read_text()):
        yield shlex.split(code)


# Configs that a page shows, by the name in their first line.
WRITTEN = {
    name: block
    for path in PAGES
    for block in re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL)
    for name in re.findall(r"\A# (\S+\.yaml)\n", block)
}

COMMANDS = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)[:70]}")
    for path in [*PAGES, *LAUNCH_FILES]
    for block in blocks(path)
    for words in commands(block)
]
PROSE = [
    pytest.param(words, id=f"{path.name}: {' '.join(words)[:70]}")
    for path in PAGES
    for words in in_prose(path)
]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 60
    assert {param.values[0][0] for param in COMMANDS} == PROGRAMS - {"python"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_shell_reads_it(path: Path) -> None:
    for block in blocks(path):
        read = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert read.returncode == 0, block + read.stderr


@pytest.mark.parametrize("words", COMMANDS)
def test_every_path_is_there(words: list[str]) -> None:
    for word in words:
        # Folders of the user's own are copies.
        name = word.removeprefix("file://")
        name = name.replace("jobs/kuberay/mine/answers", "jobs/kuberay/mine/once")
        name = name.replace("jobs/kuberay/mine/curate", "jobs/kuberay/curate")
        name = name.replace("jobs/kuberay/mine", "jobs/kuberay/example")
        name = name.replace("mine/cluster.yaml", "cluster.yaml").replace("mine/", "jobs/")
        # Copied there from jobs/configs; written in the page itself.
        if name.endswith("example/once/build.yaml") or name in WRITTEN:
            continue
        if re.match(r"(jobs|docs|tests|magpie_ray)/|\w+\.yaml$", name):
            assert list(ROOT.glob(name)), name


@pytest.mark.parametrize("words", [*COMMANDS, *PROSE])
def test_every_option_exists(words: list[str]) -> None:
    own = words[: words.index("--")] if "--" in words else words
    match own[0]:
        case "ray":
            check_click(ray, own[1:])
        case "anyscale":
            check_click(anyscale(), own[1:])
        case "magpie-ray":
            check_click(typer.main.get_command(app), own[1:])
        case "aws":
            check_aws(own[1:])
        case "kubectl":
            check_kubectl(own[1:])
        case "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert own[1] in targets


@functools.cache
def anyscale() -> click.Command:
    with warnings.catch_warnings(action="ignore"):  # it imports what it has deprecated itself
        from anyscale.scripts import cli
    command: click.Command = cli
    return command


def check_click(command: click.Command, words: list[str]) -> None:
    """Every subcommand and option of the words is one of the command's."""
    # By what they have: typer's groups are none of click's classes.
    while words and (commands := getattr(command, "commands", None)):
        assert words[0] in commands, words
        command, words = commands[words[0]], words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for word in words:
        if word.startswith("-") and word != "-":  # which is standard output
            assert word.split("=")[0] in known, f"{word} is no option of {command.name}"


def check_kubectl(words: list[str]) -> None:
    """By its own help, which is that of the subcommand, whatever follows it."""
    if not shutil.which("kubectl"):
        return
    plain = [word for word in words if not word.startswith("-")]
    asked = ["kubectl", *plain, "--help"], ["kubectl", "options"]
    texts = [subprocess.run(each, capture_output=True, text=True, check=True).stdout for each in asked]
    known = set(re.findall(r"(--[a-z][\w-]*|(?<=\s)-\w)(?=[=,: ])", "\n".join(texts)))
    assert f"kubectl {words[0]}" in texts[0]
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known, f"{word} is no option of kubectl {' '.join(plain)}"


def check_aws(words: list[str]) -> None:
    service, operation, *rest = words
    model = boto3.client(service, "us-east-1").meta.service_model
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    shape = model.operation_model(operations[operation]).input_shape
    assert shape is not None
    given = {word.removeprefix("--") for word in rest if word.startswith("--")}
    assert given <= {xform_name(name, "-") for name in shape.members}
    required = {xform_name(name, "-") for name in shape.required_members}
    assert required <= given


@pytest.mark.parametrize("words", COMMANDS)
def test_our_own_command_line_takes_every_argument(words: list[str], tmp_path: Path) -> None:
    if words[0] != "magpie-ray":
        return
    name, *given = words[1:]
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    read = command.make_context(name, given).params
    if "config" in read:  # as for generate, plan has overrides of it
        copied = str(read["config"]).replace("jobs/kuberay/mine/once/build", "jobs/configs/qwen2.5-7b")
        load_written(copied, list(read["overrides"] or ()), tmp_path, name if name in JOBS else None)


def load_written(name: str, overrides: list[str], folder: Path, job: str | None) -> None:
    """Load a config that a page shows, or one of the repository. job: the command it is for; None: any."""
    path = folder / "written.yaml" if name in WRITTEN else config_at(name)
    if name in WRITTEN:
        path.write_text(WRITTEN[name])
    found = load_job(path, overrides)
    assert job is None or isinstance(found, JOBS[job])


@pytest.mark.parametrize("words", COMMANDS)
def test_a_job_that_is_submitted_has_a_config_that_loads(words: list[str], tmp_path: Path) -> None:
    if words[1:3] == ["job", "submit"] and "--" in words:
        words = words[words.index("--") + 1 :]
    if words[0] == "sbatch":
        [script] = [word for word in words if word.endswith(".sbatch")]
        words = ["magpie-ray", "generate", *words[words.index(script) + 1 :]]
    if words[:3] == ["python", "-m", "magpie_ray"]:
        name, *given = words[3:]
        typer.main.get_command(app).commands[name].make_context(name, given)  # type: ignore[attr-defined]
    if words[:2] == ["magpie-ray", "generate"] or words[:2] == ["python", "jobs/generate.py"]:
        job = "job" if words[0] == "python" else words[1]
        read = typer.main.get_command(app).commands[job].make_context(job, words[2:]).params  # type: ignore[attr-defined]
        load_written(str(read["config"]), list(read["overrides"] or ()), tmp_path, None)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        leads_to = path.parent / target
        assert leads_to.exists(), target
        # GitHub shows no page below a symbolic link.
        inside = Path(os.path.normpath(leads_to)).relative_to(ROOT)
        assert not any((ROOT / folder).is_symlink() for folder in inside.parents), target


@functools.cache
def headings(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_to_headings_lead_to_one(path: Path) -> None:
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text()):
        assert heading in headings(path.parent / target if target else path), heading


NAMED = re.compile(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|yaml))?)`")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_modules_and_folders_that_it_names_exist(path: Path) -> None:
    named = [name for name in NAMED.findall(path.read_text()) if not name.startswith(("_magpie", "data/"))]
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, PACKAGE))]
    assert missing == []
