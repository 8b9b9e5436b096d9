"""Values of keys: what is taken, and that all else is refused with key, value and remedy."""

import re
from typing import Any

import pytest

from magpie_ray.config.loading import parse_config
from magpie_ray.config.schema import Config
from tests.support.configs import keys_of, message_of, overridden


@pytest.mark.parametrize("written", [1_000_000, 1e6, "1e6", "1.0E+6"])
def test_integers_may_be_written_with_an_exponent(written: object) -> None:
    assert parse_config({"num_rows": written}).num_rows == 1_000_000
    assert type(parse_config({"num_rows": written}).num_rows) is int


def test_yaml_reads_exponents_as_text_and_numbers_take_them_all_the_same() -> None:
    assert overridden("sampling.user.temperature=1e-1").sampling.user.temperature == 0.1
    assert overridden("model.revision='12e4567'").model.revision == "12e4567"


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
    ("sampling.user.temperature", -0.1, "-0.1", "a number from 0 to 2"),
    ("sampling.user.temperature", "0.7", "'0.7'", "without quotes"),
    ("sampling.user.temperature", float("nan"), "nan", "a number from 0 to 2"),
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
    ("acceptance.max_attempts", 0, "0", "a whole number of at least 1, or auto"),
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
    ("inputs.path", 5, "5", "a glob or a URL"),
    ("inputs.path", "s3://me:hunter2@b/c", "a URL with a password", "go to inputs.storage_options"),
    ("inputs.path", "https://a/b.csv?sig=hunter2", "'https://a/b.csv?...'", "without a query"),
    ("inputs.path", "simplecache::https://me:hunter2@b/c.csv", "a URL with a password", "storage_options"),
    (
        "inputs.path",
        "zip://a.csv::https://a/b.zip?sig=hunter2",
        "'zip://a.csv::https://a/b.zip?...'",
        "query",
    ),
    ("inputs.path", "s3://", "'s3://'", "a URL with a scheme and a place"),
    ("inputs.keep", ["topic"], "['topic']", "left out unless inputs.path names the inputs"),
    ("inputs.keep", "topic", "'topic'", "a list of names of columns"),
    ("inputs.keep.1", ["a", "a"], "'a'", "there once"),
    ("inputs.pick", "random", "'random'", "one of in_order, at_random"),
    ("inputs.weight", "w", "'w'", "left out unless inputs.path names the inputs"),
    ("inputs.storage_options.key", object(), "the value (not shown)", "text, a number"),
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
    within = re.match(
        r"system_prompt|inputs\.keep|engine\.extra\.hf_overrides|.*\.first_tokens\.(ban|penalties)", key
    )
    for part in reversed((within[0] if within else key).split(".")):
        data = {part: data}
    message = message_of({"num_rows": 10} | data)
    assert f"{key}: got " in message
    assert shown in message
    assert remedy in message
    assert "hunter2" not in message
    assert "\n" not in message


FREE_FORM = {"engine.extra", "inputs.storage_options", "output.storage_options"}


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
