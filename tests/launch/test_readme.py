"""The documentation tells the truth: config keys, defaults, metrics and columns are the repository's."""

import re

import yaml
from pydantic import BaseModel

from magpie_ray.config.schema import Config
from magpie_ray.monitoring.metrics import METRICS
from tests.support.paths import ROOT


def lines_of(path: str) -> list[str]:
    return (ROOT / path).read_text().splitlines()


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    found = set()
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested = keys(field.annotation, f"{prefix}{name}.")
            found |= {f"{prefix}{name}"} if name in ("user", "assistant") else nested
        else:
            found.add(prefix + name)
    return found


def test_the_config_table_has_every_key() -> None:
    lines = [line for name in ("config", "acceptance") for line in lines_of(f"docs/{name}.md")]
    rows = [line.split("|")[1] for line in lines if line.startswith("| `")]
    assert {key for row in rows for key in re.findall(r"`([\w.]+)`", row)} == keys(Config)


def value_of(config: Config, key: str) -> object:
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value.model_dump() if isinstance(value, BaseModel) else value


def test_the_config_tables_have_the_defaults() -> None:
    config = Config.model_validate({"num_rows": 1})
    checked = 0
    for line in [line for name in ("config", "acceptance") for line in lines_of(f"docs/{name}.md")]:
        if not line.startswith("| `"):
            continue
        names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
        for name, default in zip(names, defaults, strict=bool(defaults)):
            stated = yaml.safe_load(default)
            value = value_of(config, name)
            assert value == stated or (value is None and stated is False), name  # a rule that is off
            checked += 1
    assert checked > 40


def test_the_settings_of_sampling_have_the_defaults_that_are_named() -> None:
    config = Config.model_validate({"num_rows": 1})
    for role in ("user", "assistant"):
        (line,) = [line for line in lines_of("docs/config.md") if line.startswith(f"| `sampling.{role}`")]
        for setting in line.split("|")[2].split(","):
            name, value = setting.split()
            assert getattr(getattr(config.sampling, role), name) == float(value), setting


def test_the_table_of_metrics_has_every_metric() -> None:
    rows = [line.split("|")[1] for line in lines_of("docs/watching.md") if line.startswith("| `ray_")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(f"ray_{metric.name}" for metric in METRICS)
