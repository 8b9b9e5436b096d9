"""The config of `answer`: what is refused, and which command a config is for."""

from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import JOBS, job_of, load_as, load_config, load_job, parse_as
from magpie_ray.config.schema import Config
from magpie_ray.errors import ConfigError

WARM = {"assistant": {"temperature": 0.7}}


def answers(**keys: Any) -> AnswerConfig:
    return parse_as(AnswerConfig, {"source": {"path": "rows.parquet"}} | keys)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"n": 2}, "sampling.assistant.temperature: got 0.0, must be above 0 with n above 1"),
        ({"n": 2, "sampling": {"assistant": {"temperature": 1.0, "top_k": 1}}}, "greedy answers"),
        ({"n": 2, "more_turns": 1, "sampling": WARM}, "more_turns: got 1, must be 0 with n above 1"),
        ({"n": 0}, "n: got 0, must be a whole number of at least 1"),
        ({"num_rows": -1}, "num_rows: got -1, must be a whole number of at least 1"),
        ({"num_rows": "all"}, "or null for all rows"),
        ({"num_rows": False}, "or null for all rows"),
        ({"system_prompt": ["a"]}, "system_prompt: got ['a'], must be text, or \"\" for no system prompt"),
        ({"source": {"path": "s3://me:hunter2@b/c"}}, "credentials go to source.storage_options"),
        ({"source": {"path": "https://h/a.parquet?sig=x"}}, "options go to source.storage_options"),
        ({"source": {}}, "source.path"),
        ({"source": {"path": "a", "keep": "topic"}}, "source.keep"),
        ({"only_instruction": True}, "only_instruction"),
        ({"engine": {"max_model_len": 512}}, "more than sampling.assistant.max_tokens, which is 1024"),
        (
            {"acceptance": {"rules": {"language": {"by_prompt": {"german": "de"}}}}},
            "left out in a pass: its system prompts have no keys",
        ),
        (
            {
                "model": {"thinking": True},
                "sampling": {"assistant": {"first_tokens": {"ban": ["Sure"]}}},
            },
            "left out with model.thinking: true",
        ),
    ],
)
def test_a_bad_value_is_named_with_what_would_be_right(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        answers(**keys)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_the_user_needs_no_room_where_only_answers_are_written() -> None:
    user = {"max_tokens": 4000}
    assert answers(engine={"max_model_len": 2048}, sampling={"user": user}).turns == 1
    with pytest.raises(ConfigError, match=r"sampling\.user\.max_tokens"):
        answers(engine={"max_model_len": 2048}, sampling={"user": user}, more_turns=1)


def test_a_config_with_a_source_is_a_passs_and_other_commands_say_so(tmp_path: Path) -> None:
    file = tmp_path / "answers.yaml"
    file.write_text("source: {path: rows.parquet}\n")
    found = load_job(file, ["n=2", "sampling.assistant.temperature=1"])
    assert isinstance(found, AnswerConfig)
    assert (found.n, job_of(found)) == (2, "answer")
    assert isinstance(load_job(None, ["num_rows=3"]), Config)
    with pytest.raises(ConfigError, match="run `magpie-ray answer` with it"):
        load_config(file)
    with pytest.raises(ConfigError, match="source"):
        load_as(AnswerConfig, None, ["num_rows=3"])
    assert list(JOBS) == ["generate", "answer", "score"]


def test_a_source_beside_the_config_file_is_found(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").touch()
    file = tmp_path / "answers.yaml"
    file.write_text("source: {path: rows.parquet}\n")
    assert load_as(AnswerConfig, file).source.path == str(tmp_path / "rows.parquet")


def test_what_changes_rows_is_in_the_identity_and_what_may_change_is_not() -> None:
    plain = answers(seed=1).identity()
    for keys in (
        {"n": 2, "sampling": WARM},
        {"more_turns": 1},
        {"system_prompt": ""},
        {"include_system_prompt": True},
        {"source": {"path": "rows.parquet", "keep": ["topic"]}},
        {"model": {"name": "other/model"}},
        {"acceptance": {"rules": {"repetition": False}}},
    ):
        assert answers(seed=1, **keys).identity() != plain, keys
    for keys in ({"num_rows": 5}, {"source": {"path": "moved.parquet"}}, {"output": {"path": "elsewhere"}}):
        assert answers(seed=1, **keys).identity() == plain, keys


def test_secrets_of_the_source_are_not_recorded() -> None:
    source = {"path": "s3://b/rows", "storage_options": {"secret": "hunter2-hunter2"}}
    found = answers(source=source)
    assert "hunter2-hunter2" in found.secrets()
    assert "hunter2" not in str(found.recorded())
