"""The whole config: what follows from its keys, its identity, and that any other input is a ConfigError."""

import json
import pickle
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.config.fields import as_number
from magpie_ray.config.loading import load_config, parse_config
from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.dataset.columns import columns_of
from magpie_ray.errors import ConfigError
from magpie_ray.utils.redaction import REDACTED
from tests.support.configs import config, message_of, overridden


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
    assert "reasoning" in columns_of(parse_config(thinking))
    more_turns = parse_config(thinking | mode | {"n_turns": 2, "only_instruction": False})
    assert "reasoning" in columns_of(more_turns)


def test_the_identity_names_dotted_keys_and_leaves_out_what_a_resume_may_change() -> None:
    identity = config(n_turns=2).identity()
    assert identity["sampling.user.temperature"] == 1.0
    assert identity["system_prompt"] == [[None, MULTI_TURN_PROMPT, 1.0]]
    elsewhere = {
        "num_rows": 999,
        "n_turns": 2,
        "model": {"revision": "abc", "trust_remote_code": True, "chat_template_name": "rag"},
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


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, magpie_ray.config as c; c.parse_config({'num_rows': 1}).identity(); "
        "print(*{'ray', 'vllm', 'torch', 'transformers', 'pyarrow', 'fsspec'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


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
    temperature=st.floats(0, 2), top_p=fractions, max_tokens=st.integers(1, 4096), top_k=st.integers(0, 100)
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
        cluster=sections(
            num_actors=st.just("auto") | st.integers(1, 1_000_000), stall_timeout_seconds=st.floats(0.1, 1e6)
        ),
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


def on_one_line(value: object) -> str:
    """The value in YAML, text in quotes."""
    style = '"' if isinstance(value, str) else None
    dumped: str = yaml.safe_dump(value, width=10**6, default_flow_style=True, default_style=style)
    return dumped.removesuffix("...\n")


@settings(max_examples=40, deadline=None)
@given(valid_data)
def test_any_valid_config_can_be_given_by_overrides_alone(data: dict[str, Any]) -> None:
    overrides = [f"{key}={on_one_line(value)}" for key, value in leaves(data)]
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
