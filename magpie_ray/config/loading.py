"""Configs from YAML files and `key=value` overrides, and which job a config is of.

A config with `columns` is that of `score`, another one with `source` that of `answer`. All others are
`generate`'s. Invariant: all problems of a config are reported at once, one a line.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pydantic import ValidationError

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.fields import Section
from magpie_ray.config.inputs import beside_config
from magpie_ray.config.problems import problem_lines
from magpie_ray.config.ready import find_config
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.config.source import read_file, read_overrides
from magpie_ray.errors import ConfigError

JobConfig: TypeAlias = Config | AnswerConfig | ScoreConfig

# Of the jobs whose model writes messages.
WritingConfig: TypeAlias = Config | AnswerConfig

# The class of each job's config, by the command that runs the job.
JOBS: Mapping[str, type[JobConfig]] = {
    "generate": Config,
    "answer": AnswerConfig,
    "score": ScoreConfig,
}
_J = TypeVar("_J", bound=Section)


def job_of(config: JobConfig) -> str:
    """The command that runs the job of this config."""
    return next(command for command, kind in JOBS.items() if type(config) is kind)


def load_config(path: str | os.PathLike[str] | None = None, overrides: Sequence[str] = ()) -> Config:
    """The config of `generate` in the YAML file at `path`, changed by `a.b.c=value` overrides.

    path: a file, the name of a ready config such as "demo", or "-" for standard input. A file NAME or
    NAME.yaml of the user's wins over the ready config NAME. The value of an override is YAML and replaces
    the value of its key, also where that is a mapping. The last override of a key wins.

    Raises:
        ConfigError: with all problems, one a line.
    """
    return load_as(Config, path, overrides)


def load_as(kind: type[_J], path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> _J:
    """As `load_config`, the config of one job. ConfigError names the command for the config of another."""
    return _validated(kind, *_read(path, overrides))


def load_job(path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> JobConfig:
    """As `load_config`, the config of any job."""
    data, source = _read(path, overrides)
    return _validated(JOBS[_command_of(data)[0]], data, source)


def parse_config(data: Mapping[str, object]) -> Config:
    """The config in a mapping such as a YAML file holds. Raises `ConfigError` as `load_config` does."""
    return parse_as(Config, data)


def parse_as(kind: type[_J], data: Mapping[str, object]) -> _J:
    """The config of one job in such a mapping."""
    return _validated(kind, dict(data), "the config")


def _read(path: str | os.PathLike[str] | None, overrides: Sequence[str]) -> tuple[dict[Any, object], str]:
    """The plain mapping, and what messages call it."""
    if path is None:
        return read_overrides(overrides), "the config"
    found = find_config(path)
    return read_overrides(overrides, beside_config(read_file(found), found.parent)), str(found)


def _command_of(data: Mapping[Any, object]) -> tuple[str, str]:
    """The command for a config, and the key that says so."""
    marks = {"columns": "score", "source": "answer"}
    return next(((command, key) for key, command in marks.items() if key in data), ("generate", ""))


def _check_command(kind: type[Section], data: Mapping[Any, object], source: str) -> None:
    """ConfigError that names the right command, where the config is clearly one of another job."""
    command, key = _command_of(data)
    # A config for scores that lacks its columns is told so, unless it has keys of another job.
    foreign = bool((set(data) - set(kind.model_fields)) & set(JOBS[command].model_fields))
    if key and kind is not JOBS[command] and (kind is not ScoreConfig or foreign):
        raise ConfigError(f"{source}: `{key}` makes this a pass: run `magpie-ray {command}` with it")
    if not key and kind is not Config and foreign:
        wanted = next(name for name, of in JOBS.items() if of is kind)
        raise ConfigError(
            f"{source} is a config of `magpie-ray generate`, as it has no `source`: `magpie-ray {wanted}` "
            "goes over rows that exist. Give it a config with source.path; `magpie-ray init` lists ready ones"
        )


def _validated(kind: type[_J], data: dict[Any, object], source: str) -> _J:
    _check_command(kind, data, source)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = problem_lines(error, kind)
    # Raised outside of the except block: pydantic's error quotes values, secrets too, and would be chained.
    if len(lines) == 1:
        raise ConfigError(f"{source}: {lines[0]}")
    raise ConfigError("\n  ".join([f"{source} has {len(lines)} problems:", *lines]))
