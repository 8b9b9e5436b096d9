"""The config of `score`: what is refused, which command a config is for, and what makes another pass."""

from typing import Any

import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import job_of, load_as, load_config, load_job, parse_as
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.errors import ConfigError

COLUMNS = {"difficulty": {"choice": ["easy", "hard"], "prompt": "How hard is {instruction}?"}}


def scores(**keys: Any) -> ScoreConfig:
    return parse_as(ScoreConfig, {"source": {"path": "rows.parquet"}, "columns": COLUMNS} | keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"columns": {}}, "columns: got {}, must be a mapping of names to columns"),
        ({"source": {}}, "source.path"),
        ({"source": {"path": "s3://me:hunter2@b/c"}}, "credentials go to source.storage_options"),
        ({"num_rows": 0.5}, "num_rows: got 0.5"),
        ({"model": {"thinking": True}}, "model.thinking: got true, must be false in a score pass"),
        (
            {"columns": {"r": {"reward": "response"}}, "model": {"chat_format": "mine:form"}},
            "model.chat_format: got 'mine:form', must be null with columns of the kind reward",
        ),
        (
            {"columns": {"e": {"embed": "instruction"}}, "model": {"pre_query_template": "<user>"}},
            "model.pre_query_template: got '<user>', must be null with columns of the kind embed",
        ),
        ({"sampling": {"user": {"temperature": 1}}}, "sampling"),
        ({"seed": 3}, "seed"),
    ],
)
def test_a_bad_value_is_named_with_what_would_be_right(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        scores(**keys)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_config_with_columns_is_scores_and_other_commands_say_so() -> None:
    lines = ["source.path=rows.parquet", "columns={e: {embed: instruction}}"]
    found = load_job(None, lines)
    assert isinstance(found, ScoreConfig)
    assert (job_of(found), found.kind, found.names) == ("score", "embed", ("e",))
    with pytest.raises(ConfigError, match=r"`columns` makes this a pass: run `magpie-ray score` with it"):
        load_config(None, lines)
    with pytest.raises(ConfigError, match=r"source"):
        load_job(None, lines[1:])
    with pytest.raises(ConfigError, match=r"columns"):
        load_as(ScoreConfig, None, lines[:1])
    assert isinstance(load_job(None, ["num_rows=3"]), Config)


@pytest.mark.parametrize(
    "keys",
    [
        {
            "columns": {
                "difficulty": {"choice": ["easy", "hard", "odd"], "prompt": "How hard is {instruction}?"}
            }
        },
        {"columns": {"difficulty": {"choice": ["easy", "hard"], "prompt": "How hard: {instruction}"}}},
        {"columns": {"level": COLUMNS["difficulty"]}},
        {"source": {"path": "rows.parquet", "keep": ["topic"]}},
        {"engine": {"dtype": "float32"}},
    ],
)
def test_whatever_changes_a_value_makes_another_pass(keys: dict[str, Any]) -> None:
    assert scores(**keys).identity() != scores().identity()


def test_where_it_runs_and_where_its_rows_go_make_no_other_pass() -> None:
    keys: dict[str, Any] = {
        "cluster": {"num_actors": 7},
        "output": {"path": "elsewhere"},
        "engine": {"gpu_memory_utilization": 0.5},
        "num_rows": 9,
    }
    assert scores(**keys).identity() == scores().identity()


def test_a_record_of_the_config_has_all_but_the_number_of_rows_and_no_secret() -> None:
    options = {"key": "AKIA", "secret": "hunter2"}
    found = scores(num_rows=5, source={"path": "s3://b/rows", "storage_options": options})
    assert "hunter2" in found.secrets()
    recorded = found.recorded()
    assert "hunter2" not in str(recorded)
    assert "num_rows" not in recorded
    assert recorded["columns"]["difficulty"]["choice"] == {"easy": None, "hard": None}


@pytest.mark.parametrize("kind", [AnswerConfig, ScoreConfig])
def test_a_config_of_generate_given_to_a_pass_is_told_whose_it_is(
    kind: type[AnswerConfig | ScoreConfig],
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_as(kind, "demo")
    [line] = str(caught.value).splitlines()
    assert "is a config of `magpie-ray generate`" in line
    assert "source.path" in line
    with pytest.raises(ConfigError, match="tempature: unknown key"):  # no other job's key either
        load_as(kind, None, ["tempature=1"])
    with pytest.raises(ConfigError, match="run `magpie-ray answer` with it"):
        load_as(ScoreConfig, "answer-demo")
