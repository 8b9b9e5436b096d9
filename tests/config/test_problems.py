"""Problems of a config: all at once, one line each, with the key that was meant."""

from typing import Any

import pytest

from magpie_ray.config.schema import Config
from magpie_ray.errors import ConfigError
from tests.support.configs import config, keys_of, message_of


@pytest.mark.parametrize("key", list(keys_of(Config)))
def test_every_key_with_a_letter_too_many_is_told_the_right_one(key: str) -> None:
    data: Any = {key.rpartition(".")[2] + "x": 1}
    for part in reversed(key.split(".")[:-1]):
        data = {part: data}
    assert f"{key}x: unknown key; did you mean {key}?" in message_of({"num_rows": 1} | data)


def test_all_problems_are_listed_at_once_without_a_word_of_pydantics() -> None:
    message = message_of(
        {"n_turns": 0, "only_instruction": True, "include_system_prompt": True, "engin": {}, 1: 2}
    )
    assert message.splitlines() == [
        "the config has 5 problems:",
        "  num_rows: is required; add it to the config, or to the command line as num_rows=VALUE",
        "  n_turns: got 0, must be a whole number of at least 1",
        "  include_system_prompt: got true, must be false with only_instruction: true, which writes no "
        "`conversation` column",
        "  engin: unknown key; did you mean engine?",
        "  1: keys must be text; put this one in quotes",
    ]


def test_an_unknown_key_without_a_likeness_lists_the_known_ones() -> None:
    message = message_of({"num_rows": 1, "rounds": {"zzz": 1}})
    assert message.endswith("rounds.zzz: unknown key; the keys of rounds are cohort_size, cohorts_in_flight")


def test_an_error_elsewhere_keeps_secrets_out_of_message_and_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        config(n_turns=0, output={"storage_options": {"key": "hunter2"}, "secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
