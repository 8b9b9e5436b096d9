"""The section `inputs`: what it means for the rest of the config, and what it refuses."""

from pathlib import Path

import pytest

from magpie_ray.config.loading import load_config, parse_config
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


def test_a_relative_path_in_a_file_is_taken_from_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub/tables").mkdir(parents=True)
    for name in ("prompts.csv", "sub/prompts.csv", "sub/tables/a.csv", "here.csv"):
        (tmp_path / name).touch()

    def path_in(text: str, *overrides: str) -> str | None:
        (tmp_path / "sub/config.yaml").write_text(text)
        return load_config("sub/config.yaml", overrides).inputs.path

    assert path_in("inputs: {path: prompts.csv}") == "sub/prompts.csv"
    assert path_in("inputs: {path: tables/*.csv}") == "sub/tables/*.csv"
    assert path_in("inputs: {path: ./tables}") == "sub/./tables"
    # What is not there is looked for in the folder of the command, as is what the command line names.
    assert path_in("inputs: {path: here.csv}") == "here.csv"
    assert path_in("inputs: {path: none.csv}") == "none.csv"
    assert path_in("num_rows: 1", "inputs.path=prompts.csv") == "prompts.csv"
    assert path_in("inputs: {path: prompts.csv, keep: [a]}", "inputs.path=here.csv") == "here.csv"
    for elsewhere in (f"{tmp_path}/prompts.csv", "s3://bucket/prompts.csv", "~/prompts.csv"):
        assert path_in(f"inputs: {{path: '{elsewhere}'}}") == elsewhere
    monkeypatch.chdir(tmp_path / "sub")
    assert load_config("config.yaml", ["inputs.path=prompts.csv"]).inputs.path == "prompts.csv"
