"""The ready configs that come with the package, and which file the name of a config stands for.

Layout: magpie_ray/configs/NAME.yaml, whose first sentence says what it makes; a file that it needs lies
beside it as NAME.csv or the like. Invariants: a file of the user's wins over a ready config of that name; no
file is overwritten.
"""

import difflib
import logging
import os
import re
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from magpie_ray.errors import ConfigError, PreflightError

log = logging.getLogger(__name__)

_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyConfig:
    """One ready config. summary: a sentence. beside: the files that its YAML file needs beside it."""

    name: str
    path: Path
    summary: str
    beside: tuple[Path, ...]


def ready_names() -> list[str]:
    """The names of all ready configs, in order."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def nearest_first(wanted: str) -> list[str]:
    """The names of all ready configs, those first that are written most like the wanted one."""
    return sorted(ready_names(), key=lambda name: -difflib.SequenceMatcher(None, wanted, name).ratio())


def find_ready(name: str) -> ReadyConfig:
    """The ready config of that name. Raises ConfigError with the names there are, the nearest first."""
    if name not in ready_names():
        raise ConfigError(f"there is no ready config {name!r}; there are {', '.join(nearest_first(name))}")
    path = _folder() / f"{name}.yaml"
    summary = re.match(r"# (.+?\.)\s", path.read_text(encoding="utf-8"))
    assert summary, path
    beside = sorted(file for file in path.parent.glob(f"{name}.*") if file.suffix not in (".yaml", ".pyc"))
    return ReadyConfig(name=name, path=path, summary=summary[1], beside=tuple(beside))


def find_config(path: str | os.PathLike[str]) -> Path:
    """The file that `path` stands for: itself; for a bare NAME, the file NAME.yaml here or the ready config.

    A bare name has neither a folder nor an ending. The log says which file it stands for.
    """
    given = Path(path)
    name = str(given)
    is_there = os.path.exists(given) and not os.path.isdir(given)
    if name != given.name or name.endswith(_ENDINGS) or is_there:
        return given
    for ending in _ENDINGS:
        own = Path(name + ending)
        if os.path.isfile(own):
            log.info("the config %s is the file %s in this folder", name, own)
            return own
    if name not in ready_names():
        return given
    ready = _folder() / f"{name}.yaml"
    log.info("the config %s is the ready one, %s", name, ready)
    return ready


def write_copy(ready: ReadyConfig, target: Path | None = None) -> tuple[Path, ...]:
    """Write a ready config to `target`, and the files that it needs beside it.

    target: a YAML file, or a folder for NAME.yaml; None is the folder of the command. The commands in its
    comments name the new file. A file beside it that is there already, with the same content, stays. Returns
    the paths, the config first. Raises PreflightError where another file is there or none can be written.
    """
    target = target or Path()
    if target.is_dir():
        target /= ready.path.name
    elif target.suffix not in _ENDINGS:
        raise PreflightError(f"{target}: must end in .yaml, or be a folder that is there")
    text = ready.path.read_text(encoding="utf-8")
    for command in ("magpie-ray generate", "magpie-ray answer", "magpie-ray score"):
        text = text.replace(f"{command} {ready.name}", f"{command} {shlex.quote(str(target))}")
    contents = {target.parent / file.name: file.read_bytes() for file in ready.beside}
    contents = {path: content for path, content in contents.items() if _content(path) != content}
    contents[target] = text.encode()
    for path in contents:
        if os.path.lexists(path):
            raise PreflightError(_taken(ready, path))
    for path, content in contents.items():
        _create(ready, path, content)
    return (target, *(target.parent / file.name for file in ready.beside))


def _create(ready: ReadyConfig, path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError as exc:
        raise PreflightError(_taken(ready, path)) from exc
    except FileNotFoundError as exc:
        raise PreflightError(f"{path}: there is no folder {path.parent}; make it first") from exc
    except OSError as exc:
        raise PreflightError(f"{path}: can't be written: {exc}") from exc


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _taken(ready: ReadyConfig, path: Path) -> str:
    where = "FILE" if path.suffix in _ENDINGS else "another/folder/"
    return (
        f"{path}: is there already and stays as it is; move it away, or write to another place: "
        f"magpie-ray init {ready.name} {where}"
    )


def _folder() -> Path:
    return Path(str(files("magpie_ray").joinpath("configs")))
