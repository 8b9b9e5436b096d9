"""The documentation tells the truth: config keys, defaults, metrics and columns are the repository's."""

import re

import pytest
import yaml
from pydantic import BaseModel

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.config.scoring import ChoiceColumn, EmbedColumn, RewardColumn
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


def value_of(config: BaseModel, key: str) -> object:
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


# Sections of passes that docs/config.md explains.
SHARED = {"seed", "model", "sampling", "engine", "rounds", "acceptance", "cluster"}
COLUMNS = {
    f"columns.NAME.{key}" for kind in (ChoiceColumn, RewardColumn, EmbedColumn) for key in kind.model_fields
}
SOME_COLUMNS = {"columns": {"e": {"embed": "instruction"}}}


@pytest.mark.parametrize(
    ("page", "kind", "more"), [("answers", AnswerConfig, {}), ("scores", ScoreConfig, SOME_COLUMNS)]
)
def test_the_table_of_a_pass_has_its_own_keys_and_their_defaults(
    page: str, kind: type[AnswerConfig | ScoreConfig], more: dict[str, object]
) -> None:
    text = (ROOT / f"docs/{page}.md").read_text().split("## Keys")[1]
    config = parse_as(kind, {"source": {"path": "rows"}} | more)
    named = set[str]()
    for line in text.splitlines():
        if line.startswith("| `"):
            names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
            named |= set(names)
            for name, default in zip(names, defaults, strict=bool(defaults)):
                if not name.startswith("columns."):
                    assert value_of(config, name) == yaml.safe_load(default), name
    own = {key for key in keys(kind) if key.split(".")[0] not in (SHARED | {"output", "columns"})}
    assert named == own | {"output.path"} | (COLUMNS if more else set())
    told = set(re.findall(r"`(\w+)`", text.split("\n\n")[2].split(" are as in ")[0]))
    assert told - {"output"} == SHARED & set(kind.model_fields)


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
