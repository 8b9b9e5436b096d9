"""Inputs before a build begins: what they make of the config, and what is refused, by its row."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.derivation import derive
from magpie_ray.config.loading import parse_config
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record
from magpie_ray.errors import BuildMismatchError, ConfigError, FormatError, InterruptedJobError, MagpieError
from magpie_ray.planning.plan import make_plan
from magpie_ray.preflight.inputs import copy_inputs
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import check_existing, open_build
from tests.support.builds import GEMMA_LIKE, commit, config_of, memory_storage, model_folder
from tests.support.inputs import write_table

ROWS = [{"system_prompt": f"You talk to person {i}.", "topic": f"t{i}"} for i in range(12)]
DEMANDING = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}{{ raise_exception('a system message first') }}"
    "{% endif %}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>"
    "{% endif %}"
)

SYSTEM_TAKING = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def with_inputs(path: Path, rows: Any = ROWS, name: str = "a.jsonl", **keys: Any) -> Config:
    inputs = {"path": str(write_table(path / name, rows))} | keys.pop("inputs", {})
    return parse_config({"inputs": inputs} | keys)


def refusal(config: Config) -> str:
    with pytest.raises(MagpieError) as caught:
        resolve_build(config)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_num_rows_is_the_number_of_inputs_where_it_is_left_out(tmp_path: Path) -> None:
    build_spec = resolve_build(with_inputs(tmp_path))
    assert build_spec.config.num_rows == 12
    assert build_spec.prompts == ()
    assert resolve_build(with_inputs(tmp_path, num_rows=30)).config.num_rows == 30


def test_inputs_decide_on_system_prompts_and_no_others_apply(tmp_path: Path) -> None:
    build_spec = resolve_build(with_inputs(tmp_path, n_turns=2))
    assert (build_spec.prompts, build_spec.warnings) == ((), ())
    build_spec = resolve_build(with_inputs(tmp_path, n_turns=2, system_prompt={"kind": "Be kind."}))
    assert build_spec.prompts == ()
    assert "system_prompt_key" not in build_spec.record(4).columns
    [warning] = build_spec.warnings
    assert warning.startswith("system_prompt has no effect: the column system_prompt of the inputs")


def test_builds_without_inputs_have_the_identity_that_they_had() -> None:
    identity = resolve_build(config_of()).identity()
    assert not [key for key in identity if "input" in key]


def test_the_content_decides_the_identity_and_the_place_does_not(tmp_path: Path) -> None:
    first = resolve_build(with_inputs(tmp_path)).identity()
    assert resolve_build(with_inputs(tmp_path / "elsewhere", name="b.csv")).identity() == first
    renamed = [{"persona": row["system_prompt"]} for row in ROWS]
    other = with_inputs(tmp_path / "c", renamed, inputs={"system_prompt": "persona"})
    assert resolve_build(other).identity() == first
    for changed in (
        with_inputs(tmp_path / "d", ROWS[1:]),
        with_inputs(tmp_path / "e", inputs={"keep": ["topic"]}),
        with_inputs(tmp_path / "f", inputs={"pick": "at_random"}),
    ):
        assert resolve_build(changed).identity() != first


@pytest.mark.parametrize("name", ["row_id", "System_Prompt", "input_id", "conversation", "response"])
def test_a_kept_column_with_the_name_of_one_of_ours_is_refused(tmp_path: Path, name: str) -> None:
    said = refusal(with_inputs(tmp_path, [{"system_prompt": "x", name: "y"}], inputs={"keep": [name]}))
    assert said.startswith(f"inputs.keep: got {name}, which is the name of a column that rows have anyway")


def test_kept_columns_that_differ_in_capitals_alone_are_refused(tmp_path: Path) -> None:
    said = refusal(
        with_inputs(tmp_path, [{"system_prompt": "x", "a": 1, "A": 2}], inputs={"keep": ["a", "A"]})
    )
    assert said.startswith("inputs.keep: got a and A, which many readers take for one name")


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ("in", "in"),
        ("in", "in/out"),
        ("in", "in/../in"),
        ("in", "file://{}/in/out"),
        ("in/**/*.parquet", "in/out"),
        ("in/*/*/*.parquet", "in/out"),
        ("out/data", "out"),
        ("out/data/*.parquet", "out"),
        ("out/data/part-000000000000.parquet", "out"),
    ],
)
def test_an_output_whose_rows_would_be_inputs_is_refused(tmp_path: Path, inputs: str, output: str) -> None:
    write_table(tmp_path / "in" / "a.jsonl", ROWS)
    output = output.format(tmp_path) if "{}" in output else f"{tmp_path}/{output}"
    config = parse_config({"inputs": {"path": f"{tmp_path}/{inputs}"}, "output": {"path": output}})
    assert "which lies in inputs.path" in refusal(config)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [("in/*.jsonl", "in/out"), ("in/a.jsonl", "in"), ("in", "in-and-out"), ("in/a.jsonl", "in/out")],
)
def test_an_output_beside_the_inputs_is_fine(tmp_path: Path, inputs: str, output: str) -> None:
    write_table(tmp_path / "in" / "a.jsonl", ROWS)
    paths = {"inputs": {"path": f"{tmp_path}/{inputs}"}, "output": {"path": f"{tmp_path}/{output}"}}
    assert resolve_build(parse_config(paths)).config.num_rows == 12


def test_a_prompt_that_does_not_fit_the_context_is_refused_by_its_row(tmp_path: Path) -> None:
    rows = [*ROWS, {"system_prompt": "why " * 3_000}, *ROWS]
    said = refusal(with_inputs(tmp_path, rows))
    assert said.startswith("a.jsonl, line 13: the system prompt makes a prompt of ")
    assert "tokens, and the context has 2,048 " in said
    fits = [*ROWS, {"system_prompt": "why " * 520}]  # more bytes than the context has tokens
    assert resolve_build(with_inputs(tmp_path, fits)).config.num_rows == 13


def test_a_prompt_with_a_special_token_is_refused_by_its_row(tmp_path: Path) -> None:
    said = refusal(with_inputs(tmp_path, [*ROWS, {"system_prompt": "Say <|eot_id|>."}], name="a.parquet"))
    assert said.startswith("a.parquet, row 12: The system prompt 'Say <|eot_id|>.' contains '<|eot_id|>'")


def test_a_template_without_a_system_role_refuses_the_first_row_with_a_prompt(tmp_path: Path) -> None:
    model = {"name": model_folder(tmp_path / "model", GEMMA_LIKE)}
    rows = [{"system_prompt": None}, {"system_prompt": " "}, *ROWS]
    said = refusal(with_inputs(tmp_path, rows, model=model))
    assert said.startswith("a.jsonl, line 3: The chat template takes no system prompt")
    build_spec = resolve_build(with_inputs(tmp_path, rows[:2], model=model))
    assert build_spec.warnings == ("no input has a system prompt (inputs.system_prompt: system_prompt)",)


def test_a_template_that_demands_a_system_message_refuses_a_row_without_one(tmp_path: Path) -> None:
    model = {"name": model_folder(tmp_path / "model", DEMANDING)}
    assert resolve_build(with_inputs(tmp_path, model=model)).config.num_rows == 12
    said = refusal(with_inputs(tmp_path, [*ROWS, {"system_prompt": ""}], model=model))
    assert said.startswith("a.jsonl, line 13 has no system prompt, and the chat template refuses")


def test_a_literal_pre_query_has_no_place_for_prompts_of_inputs(tmp_path: Path) -> None:
    model = {"pre_query_template": "<|start_header_id|>user<|end_header_id|>"}
    assert "a.jsonl, line 1: model.pre_query_template is all the text" in refusal(
        with_inputs(tmp_path, model=model)
    )


def own_format(tokenizer: Any, system_prompts: tuple[str, ...]) -> ChatFormat:
    return derive(tokenizer, system_prompts=system_prompts)


def deaf_format(tokenizer: Any) -> ChatFormat:
    return derive(tokenizer)


def test_a_format_of_the_users_own_takes_the_prompts_of_inputs(tmp_path: Path) -> None:
    chat_format = f"{__name__}:own_format"
    build_spec = resolve_build(with_inputs(tmp_path, model={"chat_format": chat_format}))
    derived = resolve_build(with_inputs(tmp_path))
    assert build_spec.first_input == derived.first_input
    said = refusal(with_inputs(tmp_path, model={"chat_format": f"{__name__}:deaf_format"}))
    assert "deaf_format (model.chat_format) gave a format without a system prompt" in said


def test_languages_by_prompt_have_no_place_beside_inputs(tmp_path: Path) -> None:
    rules = {"language": {"by_prompt": {"kind": "en"}}}
    with pytest.raises(ConfigError, match=r"left out with inputs\.path: the prompts of inputs have no keys"):
        with_inputs(tmp_path, system_prompt={"kind": "Be kind."}, acceptance={"rules": rules})


def test_a_copy_stops_when_the_run_is_told_to(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [{"system_prompt": "x"}])
    build_spec, storage = resolve_build(parse_config({"inputs": {"path": str(path)}})), memory_storage()
    assert build_spec.inputs
    with pytest.raises(InterruptedJobError, match="the same command copies them again"):
        copy_inputs(build_spec.config, build_spec.inputs, storage, stop_requested=lambda: True)
    assert copy_inputs(build_spec.config, build_spec.inputs, storage).inputs == 1


def test_a_changed_a_missing_and_a_new_file_are_refused_by_name_on_resume(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in "abc":
        write_table(folder / f"{name}.csv", [{"system_prompt": f"{name}{i}"} for i in range(3)])
    config = parse_config({"inputs": {"path": str(folder)}, "seed": 1})
    storage = memory_storage()
    build_spec, committed, _ = open_build(resolve_build(config), storage, num_actors=1, device="cpu")
    assert build_spec.inputs
    copy_inputs(build_spec.config, build_spec.inputs, storage)
    check_existing(resolve_build(config, committed.build), committed.build, storage)
    write_table(folder / "a.csv", [{"system_prompt": f"A{i}"} for i in range(3)])
    (folder / "b.csv").rename(folder / "d.csv")
    with pytest.raises(BuildMismatchError) as caught:
        check_existing(resolve_build(config, committed.build), committed.build, storage)
    lines = str(caught.value).splitlines()
    assert lines[1:4] == ["  a.csv has changed", "  b.csv is missing", "  d.csv was added"]
    # A driver that died before it had recorded the files.
    storage.delete("_magpie/inputs/files.json")
    with pytest.raises(BuildMismatchError, match=r"inputs\.content: the build has"):
        check_existing(resolve_build(config, committed.build), committed.build, storage)


def test_a_build_with_inputs_may_grow(tmp_path: Path) -> None:
    storage = memory_storage()
    config = with_inputs(tmp_path, num_rows=5, seed=1)
    record = build_record.open_build(storage, resolve_build(config).record(4))
    commit(storage, record, 0, 4)
    grown = check_existing(resolve_build(with_inputs(tmp_path, seed=1), record), record, storage)
    assert [(p.start, p.stop) for p in grown.pending] == [(4, 8), (8, 12)]
    grown = check_existing(resolve_build(with_inputs(tmp_path, num_rows=30, seed=1), record), record, storage)
    assert grown.pending[-1].stop == 30


def test_a_plan_shows_the_inputs_and_the_prompt_of_the_first(tmp_path: Path) -> None:
    config = with_inputs(
        tmp_path,
        inputs={"keep": ["topic"]},
        output={"path": str(tmp_path / "out")},
        cluster={"num_actors": 1},
    )
    plan = make_plan(config)
    inputs = plan["inputs"]
    assert (inputs["number"], inputs["files"], inputs["format"]) == (12, 1, "JSON lines")
    assert (inputs["with_system_prompt"], inputs["pick"]) == (12, "in_order")
    assert plan["num_rows"] == plan["rows_pending"] == 12
    assert "You talk to person 0." in plan["first_prompt"]
    assert plan["columns"][-1] == "topic"
    assert "input_id" in plan["columns"]
    assert not (tmp_path / "out").exists()
    assert make_plan(config_of(output={"path": str(tmp_path / "o")}))["inputs"] is None


def test_an_input_that_is_refused_is_a_format_error_of_one_message(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        resolve_build(with_inputs(tmp_path, [{"system_prompt": "<|eot_id|>"}]))


def test_a_prompt_with_a_token_that_the_model_does_not_have_is_refused_by_its_row(tmp_path: Path) -> None:
    folder = Path(model_folder(tmp_path / "model", SYSTEM_TAKING))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = tokenizer["added_tokens"][-1] | {"id": 1999, "content": "<|tool|>", "special": False}
    tokenizer["added_tokens"].append(added)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    rows = [*ROWS, {"system_prompt": "Use <|tool|> often.", "topic": "x"}]
    assert re.search(
        r"a\.jsonl, line 13: The system prompt has the token '<\|tool\|>', id 1999, and the model has only",
        refusal(with_inputs(tmp_path, rows, model={"name": str(folder)})),
    )
    resolve_build(with_inputs(tmp_path, ROWS, model={"name": str(folder)}))
