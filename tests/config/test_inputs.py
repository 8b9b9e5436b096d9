"""The section `inputs`: what it means for the rest of the config, and what it refuses."""

import pytest

from magpie_ray.config.schema import load_config, parse_config
from tests.support.configs import message_of

SOME = {"inputs": {"path": "prompts.csv"}}


@pytest.mark.parametrize("data", [SOME, {**SOME, "num_rows": None}])
def test_num_rows_may_be_left_out_with_inputs(data: dict[str, object]) -> None:
    assert parse_config(data).num_rows == 0


@pytest.mark.parametrize("data", [{}, {"inputs": {}}, {"inputs": None}, {"inputs": {"path": None}}])
def test_num_rows_is_required_without_inputs(data: dict[str, object]) -> None:
    assert "num_rows: is required; add it to the config" in message_of(data)


def test_a_config_with_inputs_can_be_asked_for_so_many_rows_on_the_command_line() -> None:
    config = load_config(None, ["num_rows=5", "inputs.path=prompts.csv", "num_rows=null"])
    assert config.num_rows == 0


@pytest.mark.parametrize("pick", [{}, {"pick": "in_order"}])
def test_weights_are_of_draws_only(pick: dict[str, str]) -> None:
    said = message_of({"inputs": {"path": "prompts.csv", "weight": "w", **pick}})
    assert "inputs.weight: got 'w', must be null unless inputs.pick is at_random" in said


def test_the_prompts_of_inputs_are_the_only_ones() -> None:
    config = parse_config({**SOME, "n_turns": 2, "system_prompt": {"kind": "Be kind."}})
    assert config.prompts == ()
    assert not config.has_prompt_keys
    assert not parse_config({**SOME, "n_turns": 2}).prompts_are_default


def test_storage_options_of_inputs_are_secrets_and_never_recorded() -> None:
    config = parse_config({"inputs": {"path": "s3://b/p", "storage_options": {"key": "hunter2hunter2"}}})
    assert "hunter2hunter2" in config.secrets()
    assert "hunter2" not in str(config.recorded())
    assert "hunter2" not in repr(config)
