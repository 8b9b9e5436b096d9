"""Configs: what is accepted, what it means, and that everything else is one clear `ConfigError`."""

import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from magpie_ray.config.fields import as_number
from magpie_ray.config.schema import Config, load_config, parse_config
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.errors import ConfigError
from magpie_ray.types import SystemPrompt
from magpie_ray.utils.redaction import REDACTED


def config(**data: Any) -> Config:
    return parse_config({"num_rows": 10, **data})


def message_of(data: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    return str(caught.value)


def overridden(*overrides: str) -> Config:
    return load_config(None, ["num_rows=10", *overrides])


# What is accepted, and what it means


def test_only_num_rows_is_required_and_the_defaults_are_the_papers() -> None:
    made = parse_config({"num_rows": 5})
    assert (made.num_rows, made.n_turns, made.model.name) == (5, 1, "builtin:tiny-chat")
    assert (made.sampling.user.temperature, made.sampling.assistant.temperature) == (1.0, 0.0)
    assert (made.sampling.user.max_tokens, made.sampling.assistant.max_tokens) == (512, 1024)
    assert (made.cluster.stall_timeout_seconds, made.cluster.start_timeout_seconds) == (600.0, 1800.0)
    assert made.acceptance.truncated_response == "keep"
    assert made.prompts == ()


def test_a_partly_written_section_keeps_the_other_defaults() -> None:
    made = config(sampling={"assistant": {"max_tokens": 96}})
    assert (made.sampling.assistant.temperature, made.sampling.assistant.max_tokens) == (0.0, 96)


def test_a_section_with_all_its_keys_commented_out_means_the_defaults() -> None:
    assert config(engine=None, output={"storage_options": None}) == config()


def test_a_config_is_frozen_and_survives_pickling() -> None:
    made = config(system_prompt={"a": ["x", 1]}, engine={"extra": {"enforce_eager": True}})
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(ValueError, match="frozen"):
        made.num_rows = 3


@pytest.mark.parametrize("written", [1_000_000, 1e6, "1e6", "1.0E+6"])
def test_integers_may_be_written_with_an_exponent(written: object) -> None:
    assert parse_config({"num_rows": written}).num_rows == 1_000_000
    assert type(parse_config({"num_rows": written}).num_rows) is int


def test_yaml_reads_exponents_as_text_and_numbers_take_them_all_the_same() -> None:
    assert overridden("sampling.user.temperature=1e-1").sampling.user.temperature == 0.1
    assert overridden("model.revision='12e4567'").model.revision == "12e4567"


def test_the_papers_prompt_is_used_for_several_turns_only() -> None:
    made = config(n_turns=2)
    assert made.prompts == (SystemPrompt(key=None, text=MULTI_TURN_PROMPT, weight=1.0),)
    assert made.prompts_are_default
    assert "helpful AI assistant" in MULTI_TURN_PROMPT
    for other in (
        config(n_turns=1),
        config(n_turns=3, only_instruction=True),
        config(n_turns=2, system_prompt=""),
    ):
        assert other.prompts == ()
        assert not other.prompts_are_default
    assert not config(n_turns=2, system_prompt=MULTI_TURN_PROMPT).prompts_are_default


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("Be brief.", [(None, "Be brief.", 1.0)]),
        (["a", "b", "c", "d"], [(None, text, 0.25) for text in "abcd"]),
        ({"x": "a", "y": "b"}, [("x", "a", 0.5), ("y", "b", 0.5)]),
        ({"x": ["a", 3], "y": ["b", 1]}, [("x", "a", 0.75), ("y", "b", 0.25)]),
        (
            {"x": ["a", 0.7], "y": ["b", 0.2], "z": ["c", 0.1]},
            [("x", "a", 0.7), ("y", "b", 0.2), ("z", "c", 0.1)],
        ),
    ],
)
def test_each_shape_of_system_prompt_resolves_to_weighted_texts(written: Any, resolved: Any) -> None:
    made = config(system_prompt=written)
    assert [(prompt.key, prompt.text, prompt.weight) for prompt in made.prompts] == resolved
    assert made.has_prompt_keys == isinstance(written, dict)
    assert made.system_prompt == written


@pytest.mark.parametrize(
    ("mode", "turns", "messages"),
    [
        ({}, 1, 2),
        ({"end_with_user": True}, 1, 1),
        ({"n_turns": 3}, 3, 6),
        ({"n_turns": 3, "end_with_user": True}, 3, 5),
        ({"n_turns": 3, "only_instruction": True}, 1, 1),
        ({"only_instruction": True, "end_with_user": True}, 1, 1),
    ],
)
def test_the_mode_decides_turns_and_messages(mode: dict[str, Any], turns: int, messages: int) -> None:
    assert (config(**mode).turns, config(**mode).messages_per_row) == (turns, messages)


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        ({}, 1536),
        ({"only_instruction": True}, 512),
        ({"n_turns": 3}, 4608),
        ({"n_turns": 2, "end_with_user": True}, 2048),
    ],
)
def test_the_most_tokens_of_a_row_are_those_of_its_messages(keys: dict[str, Any], tokens: int) -> None:
    assert config(**keys).max_tokens_per_row == tokens


LAST_COLUMNS = "model_name finish_reasons prompt_tokens completion_tokens attempt"


@pytest.mark.parametrize(
    ("mode", "columns"),
    [
        ({}, "row_id conversation instruction response system_prompt"),
        ({"end_with_user": True}, "row_id conversation instruction system_prompt"),
        ({"n_turns": 2}, "row_id conversation system_prompt"),
        ({"n_turns": 2, "only_instruction": True}, "row_id instruction system_prompt"),
        (
            {"n_turns": 2, "system_prompt": {"math": "Do sums."}},
            "row_id conversation system_prompt system_prompt_key",
        ),
    ],
)
def test_the_columns_are_decided_by_the_mode(mode: dict[str, Any], columns: str) -> None:
    assert " ".join(config(**mode).columns()) == f"{columns} {LAST_COLUMNS}"


# Overrides


def test_overrides_are_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "# A comment first.\nnum_rows: 3\nsystem_prompt: {code: [Code., 0.7]}\nmodel: {revision: abc}\n"
    )
    made = load_config(
        file,
        [
            "num_rows=7",
            "num_rows=105",
            "sampling.user.temperature=0.9",
            "system_prompt.math=[Do sums., 0.3]",
            "model.revision=null",
            "output.storage_options.anon=true",
            "output.path=s3://bucket/a=b",
        ],
    )
    assert made.num_rows == 105
    assert made.sampling.user.temperature == 0.9
    assert [(prompt.key, prompt.weight) for prompt in made.prompts] == [("code", 0.7), ("math", 0.3)]
    assert made.model.revision is None
    assert made.output.storage_options == {"anon": True}
    assert made.output.path == "s3://bucket/a=b"


def test_an_override_does_not_leak_through_a_yaml_alias(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("num_rows: 3\nsampling:\n  user: &same {temperature: 0.5}\n  assistant: *same\n")
    made = load_config(file, ["sampling.user.temperature=0.9"])
    assert (made.sampling.user.temperature, made.sampling.assistant.temperature) == (0.9, 0.5)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("n_turns", "n_turns: an override is written key=value"),
        ("=3", "is not a key"),
        ("a..b=3", "a..b=...: is not a key"),
        ("n_turns=", "n_turns=: has no value; write n_turns=null"),
        ("seed.x=3", "seed: got {'x': 3}, must be a whole number of at least 0"),
        ("num_rows.x=3", "num_rows.x: can't be set, as num_rows is a single value; set num_rows as a whole"),
        ("n_turns=[1", "n_turns=..., line 1, column 3: is not valid YAML"),
        ("system_prompt=Talk about # signs", "put the value in double quotes"),
        (
            "sampling.user.temprature=1",
            "sampling.user.temprature: unknown key; did you mean sampling.user.temperature?",
        ),
        ("temperature=1", "did you mean sampling.user.temperature or sampling.assistant.temperature?"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key_and_a_remedy(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(override)
    assert expected in str(caught.value)


# Files that can't be read


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; num_rows: 1000"),
        (b"# nothing but a comment\n", "is empty"),
        (b"- num_rows: 1\n", "holds a list; a config is a mapping"),
        (b"num_rows 1\n", "holds a single value"),
        (b"num_rows: 1\nmodel: {name: x\n", ", line 3, column 1: is not valid YAML"),
        (b"num_rows: 1\n\tn_turns: 2\n", ", line 2, column 1: is not valid YAML"),
        (
            b"num_rows: 1\nseed: 2\nnum_rows: 3\n",
            ", line 3, column 1: is not valid YAML: the key 'num_rows' is there",
        ),
        (
            b"num_rows: !!python/object/apply:os.system [ls]\n",
            "could not determine a constructor for the tag",
        ),
        (b"num_rows: !!int x\n", "a value that does not fit its YAML type"),
        (b"num_rows: !!bool x\n", "a value that does not fit its YAML type"),
        (b"num_rows: 2026-13-45\n", "a value that does not fit its YAML type"),
        (b"num_rows: 1\n---\nnum_rows: 2\n", "expected a single document"),
        (b"num_rows: 1\nsystem_prompt: caf\xe9\n", "is not UTF-8 text (byte 30)"),
        (b"num_rows: 1\x00\n", "character 11 can't be in YAML"),
        (b"a: " + b"[" * 1000, "is nested too deeply"),
    ],
)
def test_an_unreadable_file_is_one_clear_error(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(str(file))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_config_by_its_size_is_not_parsed(tmp_path: Path) -> None:
    file = tmp_path / "rows.yaml"
    file.write_bytes(b"a: b\n" * (1 << 20))
    with pytest.raises(ConfigError, match="has more than 4 MiB; a config is a short YAML file"):
        load_config(file)


def test_a_byte_order_mark_and_merge_keys_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "\ufeffnum_rows: 3\nsampling:\n  user: &same {top_p: 0.5, max_tokens: 7}\n"
        "  assistant: {<<: *same, max_tokens: 8}\n"
    )
    sampling = load_config(file).sampling
    assert (sampling.assistant.top_p, sampling.assistant.max_tokens) == (0.5, 8)


def test_yaml_that_would_run_a_command_runs_nothing(tmp_path: Path) -> None:
    file, sign = tmp_path / "a.yaml", tmp_path / "sign"
    for tag in ("object/apply:os.system", "object/new:subprocess.check_output", "object/apply:eval"):
        file.write_text(f"num_rows: !!python/{tag} ['touch {sign}']\n")
        with pytest.raises(ConfigError, match=f"could not determine a constructor for the tag .*{tag}"):
            load_config(file)
        with pytest.raises(ConfigError, match="could not determine a constructor"):
            overridden(f"seed=!!python/{tag} ['touch {sign}']")
    assert not sign.exists()


def test_a_missing_file_and_a_directory_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such config file"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="can't be read"):
        load_config("bad\0name")


# Values that can't be

BAD_VALUES = [
    # key, value, what the message shows as the value, what it says would be right
    ("num_rows", 0, "0", "a whole number of at least 1"),
    ("num_rows", True, "true", "a whole number of at least 1"),
    ("num_rows", 10.5, "10.5", "a whole number of at least 1"),
    ("num_rows", "100", "'100'", "without quotes"),
    ("num_rows", "10k", "'10k'", "a whole number"),
    ("num_rows", None, "null", "a whole number"),
    ("num_rows", 10**13, "10000000000000", "at most 1000000000000"),
    ("num_rows", float("inf"), "inf", "a whole number"),
    ("num_rows", 1 << 20_000, "a number with thousands of digits", "a whole number"),
    ("n_turns", 0, "0", "a whole number of at least 1"),
    ("only_instruction", "yes", "'yes'", "true or false, without quotes"),
    ("end_with_user", 1, "1", "true or false"),
    ("seed", -1, "-1", "at least 0 and at most 4294967295"),
    ("seed", 2**32, "4294967296", "at least 0 and at most 4294967295"),
    ("model", "gpt2", "'gpt2'", "a mapping"),
    ("model.name", "", "''", "a Hugging Face id, a local path or a bundled model"),
    ("model.name", "builtin:gpt", "'builtin:gpt'", "builtin:tiny-chat"),
    ("model.revision", 1234567, "1234567", "text, or null; put it in quotes"),
    ("model.revision", "", "''", "text, or null"),
    ("model.pre_query_template", "\ud800", r"'\ud800'", "text, or null"),
    ("model.thinking", "yes", "'yes'", "true or false, without quotes"),
    ("model.trust_remote_code", "false", "'false'", "true or false, without quotes"),
    ("sampling.user.temperature", -0.1, "-0.1", "a number of at least 0"),
    ("sampling.user.temperature", "0.7", "'0.7'", "without quotes"),
    ("sampling.user.temperature", float("nan"), "nan", "a number of at least 0"),
    ("sampling.user.top_p", 0, "0", "a number above 0 and at most 1"),
    ("sampling.assistant.top_p", 1.01, "1.01", "a number above 0 and at most 1"),
    ("sampling.assistant.max_tokens", 0, "0", "a whole number of at least 1"),
    ("sampling.assistant.min_p", 2, "2", "a number from 0 to 1"),
    ("sampling.assistant.top_k", -5, "-5", "at least 0, where 0 means all tokens"),
    ("sampling.assistant.presence_penalty", 3, "3", "a number from -2 to 2"),
    ("sampling.user.first_line_only", 1, "1", "true or false"),
    ("sampling.user.first_tokens.ban", "#", "'#'", 'a list of texts, such as ["#", "**"]'),
    ("sampling.user.first_tokens.ban.0", [" #"], "' #'", "without white space in front"),
    ("sampling.user.first_tokens.ban.1", ["#", ""], "''", "text that a message can begin with"),
    ("sampling.user.first_tokens.ban.0", ["a" * 101], "'aaa", "of at most 100 characters"),
    ("sampling.user.first_tokens.penalties", ["Sure"], "['Sure']", "a mapping of texts to numbers"),
    ("sampling.assistant.first_tokens.penalties.Sure", {"Sure": "2"}, "'2'", "a number from -100 to 100"),
    ("sampling.assistant.first_tokens.penalties.' '", {" ": 2}, "' '", "without white space in front"),
    ("sampling.user.first_tokens.temperature", 0, "0", "a number above 0, or null"),
    ("sampling.user.first_tokens.count", 0, "0", "a whole number of at least 1"),
    ("engine.device", "gpu", "'gpu'", "one of auto, cuda, cpu"),
    ("engine.dtype", "fp16", "'fp16'", "one of auto, float32, bfloat16, float16"),
    ("engine.tensor_parallel_size", 0, "0", "a whole number of at least 1"),
    ("engine.max_model_len", "auto", "'auto'", "or null"),
    ("engine.gpu_memory_utilization", 90, "90", "a number above 0 and at most 1"),
    ("engine.extra", ["x"], "['x']", "a mapping"),
    ("engine.extra.seed", 3, "3", "set with seed"),
    ("engine.extra.tokenizer", "x", "'x'", "set with model.name"),
    ("engine.extra.tensor-parallel-size", 2, "2", "set with engine.tensor_parallel_size"),
    ("engine.extra.enforce-eager", True, "true", "written as enforce_eager"),
    ("engine.extra.hf_overrides.1", {1: 2}, "2", "put the name in quotes"),
    ("engine.extra.rope_theta", "1e6", "'1e6'", "written with a dot and a sign, as 1.0e+6"),
    ("engine.extra.rope_theta", float("inf"), "inf", "a number"),
    ("rounds.cohort_size", "big", "'big'", "a whole number of at least 1, or auto"),
    ("rounds.cohorts_in_flight", 0, "0", "a whole number of at least 1, or auto"),
    ("acceptance.max_attempts", 0, "0", "a whole number of at least 1"),
    ("acceptance.truncated_response", "drop", "'drop'", "one of keep, reject"),
    ("acceptance.context_full", "keep", "'keep'", "one of reject, stop"),
    ("cluster.num_actors", None, "null", "or auto"),
    ("cluster.stall_timeout_seconds", 0, "0", "a number above 0"),
    ("cluster.start_timeout_seconds", "10m", "'10m'", "a number above 0"),
    ("output.path", None, "null", "a local path or a URL"),
    ("output.path", "s3://b/{day}", "'s3://b/{day}'", "known are {date}, {datetime}, {build_id}; {{ is a"),
    ("output.path", "s3://b/{", "'s3://b/{'", "whose braces are placeholders"),
    ("output.path", "s3://b/{date:%Y}", "'s3://b/{date:%Y}'", "whose braces are placeholders"),
    ("output.path", "s3://{date}/x", "'s3://{date}/x'", "whose scheme and bucket have no placeholders"),
    ("output.build_id", 29401320, "29401320", "text, or null; put it in quotes"),
    ("output.build_id", "a/b", "'a/b'", "1 to 63 letters, digits, dots"),
    ("output.build_id", "latest", "'latest'", "and not latest"),
    ("output.build_id", "tick-1", "'tick-1'", "null where output.path has no placeholder"),
    ("output.path", "s3://", "'s3://'", "a URL with a scheme and a place"),
    ("output.path", "http://minio:9000/b", "'http://minio:9000/b'", "output.storage_options.endpoint_url"),
    ("output.path", "abfs://a/b?sig=hunter2", "'abfs://a/b?...'", "without a query"),
    ("output.path", "s3://me:hunter2@b/c", "a URL with a password", "go to output.storage_options"),
    ("output.rows_per_partition", 0, "0", "at most 1000000000000, or auto"),
    ("output.compression", False, "false", "one of zstd, snappy, gzip, lz4, none"),
    ("output.single_writer", "yes", "'yes'", "true or false, without quotes"),
    ("output.storage_options.key", object(), "the value (not shown)", "text, a number"),
    ("system_prompt", 3, "3", "text, a list of texts"),
    ("system_prompt", "  ", "'  '", '"" for no system prompt'),
    ("system_prompt", [], "[]", "not be empty"),
    ("system_prompt", {}, "{}", "not be empty"),
    ("system_prompt", ["Do sums.", 0.3], "['Do sums.', 0.3]", "{key: [text, weight]}"),
    ("system_prompt.1", ["x", ""], "''", "text that is not blank"),
    ("system_prompt.math", {"math": ["x"]}, "['x']", "[text, weight]"),
    ("system_prompt.math.0", {"math": [3, 0.3]}, "3", "text that is not blank"),
    ("system_prompt.math.1", {"math": ["x", 0]}, "0", "weights need not sum to one"),
    ("system_prompt.math.1", {"math": ["x", float("nan")]}, "nan", "weights need not sum to one"),
    ("system_prompt.b", {"a": ["x", 0.5], "b": "y"}, "'y'", "as other keys have a weight"),
    ("system_prompt", {3: "x"}, "3", "keys that are text; put this key in quotes"),
]


@pytest.mark.parametrize(
    ("key", "value", "shown", "remedy"),
    BAD_VALUES,
    ids=[f"{number}-{case[0]}" for number, case in enumerate(BAD_VALUES)],
)
def test_a_bad_value_is_named_with_its_key_and_what_would_be_right(
    key: str, value: object, shown: str, remedy: str
) -> None:
    data: Any = value
    within = re.match(r"system_prompt|engine\.extra\.hf_overrides|.*\.first_tokens\.(ban|penalties)", key)
    for part in reversed((within[0] if within else key).split(".")):
        data = {part: data}
    message = message_of({"num_rows": 10} | data)
    assert f"{key}: got " in message
    assert shown in message
    assert remedy in message
    assert "hunter2" not in message
    assert "\n" not in message


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a value may be, alone or among others."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict):
        return None
    return next((found for part in get_args(annotation) if (found := section_in(part))), None)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        if section := section_in(field.annotation):
            yield from keys_of(section, f"{prefix}{name}.")
        else:
            yield prefix + name


FREE_FORM = {"engine.extra", "output.storage_options"}
NOT_A_VALUE = [object(), b"bytes", [[]], -3.5]


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in keys_of(Config) for value in NOT_A_VALUE]
    + [(key, {"x": {"y": 1}}) for key in keys_of(Config) if key not in FREE_FORM],
)
def test_every_key_refuses_what_it_can_not_be_with_its_name_and_what_would_be_right(
    key: str, value: object
) -> None:
    data: Any = value
    for part in reversed(key.split(".")):
        data = {part: data}
    line = message_of({"num_rows": 1} | data)
    assert re.match(rf"the config: {re.escape(key)}(\.\S+)?: got .+, (must|which) ", line), line


@pytest.mark.parametrize("key", list(keys_of(Config)))
def test_every_key_with_a_letter_too_many_is_told_the_right_one(key: str) -> None:
    data: Any = {key.rpartition(".")[2] + "x": 1}
    for part in reversed(key.split(".")[:-1]):
        data = {part: data}
    assert f"{key}x: unknown key; did you mean {key}?" in message_of({"num_rows": 1} | data)


def test_combinations_that_contradict_each_other_are_refused() -> None:
    contradictory = {"num_rows": 1, "only_instruction": True, "include_system_prompt": True}
    assert "include_system_prompt: got true, must be false with only_instruction: true" in message_of(
        contradictory
    )
    crowded = {"num_rows": 1, "engine": {"max_model_len": 512}, "sampling": {"user": {"max_tokens": 64}}}
    assert "engine.max_model_len: got 512, must be more than sampling.assistant.max_tokens" in message_of(
        crowded
    )
    assert parse_config(crowded | {"only_instruction": True}).engine.max_model_len == 512
    assert parse_config(crowded | {"end_with_user": True}).engine.max_model_len == 512


@pytest.mark.parametrize("mode", [{"only_instruction": True}, {"end_with_user": True}])
def test_thinking_is_refused_where_there_is_no_answer_to_think_about(mode: dict[str, Any]) -> None:
    thinking = {"num_rows": 1, "model": {"thinking": True}}
    assert "model.thinking: got true, must be false where rows have no answers" in message_of(thinking | mode)
    assert "reasoning" in parse_config(thinking).columns()
    assert "reasoning" in parse_config(thinking | mode | {"n_turns": 2, "only_instruction": False}).columns()


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("rules", [{"ban": ["#"]}, {"penalties": {"Sure": 1}}, {"temperature": 1.2}])
def test_first_tokens_are_refused_under_speculative_decoding(role: str, rules: dict[str, Any]) -> None:
    speculation = {"engine": {"extra": {"speculative_config": {"method": "ngram"}}}}
    both = {"num_rows": 1, "sampling": {role: {"first_tokens": rules}}} | speculation
    assert "engine.extra.speculative_config: got {'method': 'ngram'}, must be left out" in message_of(both)
    mixed = {"num_rows": 1, "sampling": {role: [{}, {"first_tokens": rules}]}} | speculation
    assert "engine.extra.speculative_config" in message_of(mixed)
    idle = {"num_rows": 1, "sampling": {role: {"first_tokens": {"count": 2}}}} | speculation
    assert not parse_config(idle).sampling.uses_first_tokens
    watermarks = {"engine": {"extra": {"watermark_config": {"x": 1}}}}
    assert "first_tokens in its model runner V2, which this needs" in message_of(both | watermarks)


def test_first_tokens_of_answers_are_refused_where_these_begin_with_reasoning() -> None:
    thinking = {"num_rows": 1, "model": {"thinking": True}}
    rules = {"first_tokens": {"ban": ["Sure"]}}
    assert parse_config(thinking | {"sampling": {"user": rules}}).sampling.uses_first_tokens
    line = message_of(thinking | {"sampling": {"assistant": rules}})
    assert (
        "sampling.assistant.first_tokens: got {'ban': ['Sure']}, must be left out with model.thinking" in line
    )


def test_only_the_users_messages_can_be_cut_at_their_first_line() -> None:
    assert config(sampling={"user": [{"first_line_only": True}, {}]}).sampling.mix("user")
    line = message_of({"num_rows": 1, "sampling": {"assistant": {"first_line_only": True}}})
    expected = "sampling.assistant.first_line_only: unknown key; did you mean sampling.user.first_line_only?"
    assert expected in line


def test_banned_texts_are_a_set_and_rules_that_say_nothing_are_none() -> None:
    made = config(
        sampling={"user": {"first_tokens": {"ban": ["b", "a", "b"], "penalties": {"d": 1, "c": -1}}}}
    )
    rules = made.sampling.user.first_tokens
    assert (rules.ban, list(rules.penalties.items())) == (["a", "b"], [("c", -1.0), ("d", 1.0)])
    assert rules.is_active
    assert not config().sampling.user.first_tokens.is_active


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


def test_aliases_that_mean_a_cycle_or_a_billion_values_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("num_rows: 1\nengine: {extra: {x: &a [*a, *a]}}\n")
    with pytest.raises(ConfigError, match=r"engine\.extra\.x: .* at most 20 levels deep"):
        load_config(file)
    laughs = "".join(f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 9))
    file.write_text(f"num_rows: 1\nengine:\n  extra:\n    l0: &l0 [lol]\n{laughs}")
    with pytest.raises(ConfigError, match="with at most 10000 values"):
        load_config(file)


# Identity, record, secrets


def test_the_identity_names_dotted_keys_and_leaves_out_what_a_resume_may_change() -> None:
    identity = config(n_turns=2).identity()
    assert identity["sampling.user.temperature"] == 1.0
    assert identity["system_prompt"] == [[None, MULTI_TURN_PROMPT, 1.0]]
    elsewhere = {
        "num_rows": 999,
        "n_turns": 2,
        "model": {"revision": "abc", "trust_remote_code": True},
        "engine": {
            "device": "cpu",
            "tensor_parallel_size": 4,
            "max_num_seqs": 7,
            "gpu_memory_utilization": 0.5,
            "extra": {"enforce_eager": True, "hf_token": "x"},
        },
        "rounds": {"cohort_size": 3},
        "cluster": {"num_actors": 3},
        "output": {"path": "s3://b/c", "compression": "gzip", "single_writer": True},
    }
    assert parse_config(elsewhere).identity() == identity


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("sampling.user.temperature=0.9", "sampling.user.temperature"),
        ("sampling.user.first_line_only=true", "sampling.user.first_line_only"),
        ("sampling.user.first_tokens.ban=['#']", "sampling.user.first_tokens.ban"),
        ("sampling.user.first_tokens.penalties={Sure: 2}", "sampling.user.first_tokens.penalties.Sure"),
        ("sampling.assistant.first_tokens.temperature=1.2", "sampling.assistant.first_tokens.temperature"),
        ("seed=1", "seed"),
        ("engine.dtype=float16", "engine.dtype"),
        ("engine.max_model_len=4096", "engine.max_model_len"),
        ("engine.extra.rope_theta=1.0", "engine.extra.rope_theta"),
        ("acceptance.truncated_response=reject", "acceptance.truncated_response"),
        ("acceptance.context_full=stop", "acceptance.context_full"),
        ("system_prompt=Hello", "system_prompt"),
        ("model.name=a/b", "model.name"),
        ("end_with_user=true", "end_with_user"),
    ],
)
def test_what_changes_the_data_changes_one_named_key_of_the_identity(override: str, key: str) -> None:
    before, after = overridden().identity(), overridden(override).identity()
    assert {name for name in before | after if before.get(name) != after.get(name)} == {key}


def test_two_ways_to_write_the_same_prompts_are_one_identity() -> None:
    one = config(system_prompt={"a": ["x", 0.7], "b": ["y", 0.2], "c": ["z", 0.1]})
    other = config(system_prompt={"a": ["x", 7], "b": ["y", 2], "c": ["z", 1]})
    assert one.identity() == other.identity()


def test_no_secret_is_recorded_shown_or_part_of_the_identity() -> None:
    made = config(
        engine={
            "extra": {"hf_token": "hunter2", "hf_overrides": {"api-key": "hunter2"}, "x": "hf_hunter2hunter2"}
        },
        output={
            "storage_options": {"key": "hunter2", "client_kwargs": {"proxies": ["hunter2"]}, "anon": False}
        },
    )
    recorded = made.recorded()
    assert "hunter2" not in json.dumps(recorded) + json.dumps(made.identity()) + repr(made)
    assert "num_rows" not in recorded
    assert recorded["output"]["storage_options"] == {
        "key": REDACTED,
        "client_kwargs": {"proxies": REDACTED},
        "anon": False,
    }
    assert recorded["engine"]["extra"]["hf_token"] == REDACTED
    assert made.output.storage_options["key"] == "hunter2"


def test_an_error_elsewhere_keeps_secrets_out_of_message_and_traceback() -> None:
    with pytest.raises(ConfigError) as caught:
        config(n_turns=0, output={"storage_options": {"key": "hunter2"}, "secret": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_word_with_token_in_it_is_no_secret() -> None:
    extra = {"max_num_batched_tokens": 8192}
    assert config(engine={"extra": extra}).recorded()["engine"]["extra"] == extra


# Imports


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, magpie_ray.config as c; c.parse_config({'num_rows': 1}).identity(); "
        "print(*{'ray', 'vllm', 'torch', 'transformers', 'pyarrow', 'fsspec'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


# Any config at all

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12).filter(str.strip)
weights = st.one_of(st.integers(1, 100), st.floats(1e-6, 1e6))
fractions = st.floats(0.01, 1.0)
counts = st.integers(1, 2**31 - 1)
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**60), 2**60),
        st.floats(-1e9, 1e9),
        texts.filter(lambda text: as_number(text) is None),  # engine.extra refuses a number as text
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def sections(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


sampling_settings = sections(
    temperature=st.floats(0, 10), top_p=fractions, max_tokens=st.integers(1, 4096), top_k=st.integers(0, 100)
)
valid_data = st.builds(
    lambda num_rows, rest: {"num_rows": num_rows} | rest,
    st.integers(1, 10**12),
    sections(
        n_turns=st.integers(1, 9),
        only_instruction=st.booleans(),
        end_with_user=st.booleans(),
        system_prompt=st.one_of(
            st.none(),
            st.just(""),
            texts,
            st.lists(texts, min_size=1, max_size=3),
            st.dictionaries(texts, texts, min_size=1, max_size=3),
            st.dictionaries(texts, st.tuples(texts, weights).map(list), min_size=1, max_size=3),
        ),
        seed=st.integers(0, 2**32 - 1),
        model=sections(
            name=texts.filter(lambda name: not name.startswith("builtin:")), revision=st.none() | texts
        ),
        sampling=sections(user=sampling_settings, assistant=sampling_settings, reproducible=st.booleans()),
        engine=sections(
            device=st.sampled_from(["auto", "cuda", "cpu"]),
            max_model_len=st.none() | st.integers(4097, 10**6),
            extra=st.dictionaries(
                st.sampled_from(["block_size", "hf_overrides", "rope_theta"]), plain, max_size=2
            ),
        ),
        cluster=sections(num_actors=st.just("auto") | counts, stall_timeout_seconds=st.floats(0.1, 1e6)),
        output=sections(
            rows_per_partition=st.just("auto") | counts,
            storage_options=st.dictionaries(texts, plain, max_size=3),
        ),
    ),
)


@settings(max_examples=40, deadline=None)
@given(valid_data)
def test_any_valid_config_goes_through_yaml_and_its_own_record(data: dict[str, Any]) -> None:
    made = parse_config(data)
    assert parse_config(yaml.safe_load(yaml.safe_dump(made.model_dump()))) == made
    identity, recorded = made.identity(), made.recorded()
    assert json.loads(json.dumps(identity)) == identity
    assert json.loads(json.dumps(recorded)) == recorded
    assert parse_config({**recorded, "num_rows": 1}).identity() == identity
    assert not any(re.match(r"num_rows|output|cluster|rounds", key) for key in identity)
    assert sum(prompt.weight for prompt in made.prompts) == pytest.approx(1.0 if made.prompts else 0.0)


def leaves(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        is_section = isinstance(value, dict) and key in {
            "model",
            "sampling",
            "user",
            "assistant",
            "engine",
            "cluster",
        }
        found += leaves(value, f"{prefix}{key}.") if is_section else [(prefix + key, value)]
    return found


@settings(max_examples=40, deadline=None)
@given(valid_data)
def test_any_valid_config_can_be_given_by_overrides_alone(data: dict[str, Any]) -> None:
    overrides = [
        f"{key}={yaml.safe_dump(value, width=10**6, default_flow_style=True)}" for key, value in leaves(data)
    ]
    assert load_config(None, overrides) == parse_config(data)


KEYS = [
    "num_rows",
    "n_turns",
    "system_prompt",
    "seed",
    "model",
    "sampling",
    "engine",
    "output",
    "cluster",
    "extra",
]
names = st.one_of(
    st.sampled_from([*KEYS, "user", "name", "path", "max_tokens", "storage_options"]), st.text()
)
garbage = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters()),
        st.sampled_from(["\ud800", "x\udfff"]),
        st.binary(max_size=3),
        st.dates(),
        st.sampled_from(["auto", "1e6", "1e999", "builtin:x", "s3://{x}"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(names | st.integers() | st.dates(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(names | st.integers(), garbage, max_size=6))
def test_garbage_is_never_anything_but_a_config_error(data: dict[Any, Any]) -> None:
    try:
        parse_config(data)
    except ConfigError as error:
        str(error).encode()  # it can be printed


@settings(max_examples=60, deadline=None)
@given(
    st.text(),
    st.lists(st.text(st.sampled_from("num_rows.=!&*[]{}'\"#:-1e \n\t") | st.characters()), max_size=3),
)
def test_garbage_in_a_file_or_in_overrides_is_never_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, overrides: list[str]
) -> None:
    file = tmp_path_factory.getbasetemp() / "garbage.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    for path in (file, None):
        try:
            load_config(path, overrides)
        except ConfigError as error:
            str(error).encode()


# ---- a mix of sampling settings


def test_settings_in_a_list_are_chosen_by_weight_and_named_in_a_column() -> None:
    made = config(
        sampling={
            "user": [{"temperature": 1.0, "weight": 3}, {"temperature": 1.25, "top_p": 0.99, "weight": 1}]
        }
    )
    [(plain, often), (hot, rarely)] = made.sampling.mix("user")
    assert (plain.temperature, often, hot.top_p, rarely) == (1.0, 0.75, 0.99, 0.25)
    assert made.sampling.mix("assistant")[0][0].temperature == 0.0
    assert "sampling_key" in made.columns()
    assert "sampling_key" not in config().columns()


def test_settings_without_weights_are_chosen_equally_often() -> None:
    made = config(sampling={"assistant": [{"temperature": 0.0}, {"temperature": 0.7}]})
    assert [weight for _, weight in made.sampling.mix("assistant")] == [0.5, 0.5]
    assert made.sampling.mix("assistant")[0][0].max_tokens == 1024


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ([], "sampling.user: got [], must be a mapping, or a list of at least one"),
        ([{"weight": 1}, {}], "sampling.user.1.weight: got null, must be given, as others have"),
        ([{"weight": 0}], "sampling.user.0.weight: got 0, must be a weight from 1e-09 to 1e+09"),
        ([{"top_p": 2}], "sampling.user.0.top_p: got 2, must be a number above 0 and at most 1"),
        (
            [{"temprature": 2}],
            "sampling.user.0.temprature: unknown key; did you mean sampling.user.0.temperature?",
        ),
        ([3], "sampling.user.0: got 3, must be a mapping of keys to values"),
        ({"weight": 1}, "sampling.user.weight: unknown key"),
        (3, "sampling.user: got 3, must be a mapping of keys to values"),
    ],
)
def test_what_is_wrong_in_a_mix_is_told_by_its_place(user: object, said: str) -> None:
    assert said in message_of({"num_rows": 1, "sampling": {"user": user}})


def test_one_setting_in_a_list_is_that_setting() -> None:
    plain, listed = config(sampling={"user": {"top_p": 0.9}}), config(sampling={"user": [{"top_p": 0.9}]})
    assert plain.identity() == listed.identity()
    assert plain.columns() == listed.columns()


def test_a_build_never_mixes_two_mixes() -> None:
    mixes = [
        config(sampling={"user": [{"top_p": 0.9, "weight": weight}, {"weight": 1}]}) for weight in (1, 2, 2.0)
    ]
    one, other, same = (made.identity() for made in mixes)
    assert one != other == same
