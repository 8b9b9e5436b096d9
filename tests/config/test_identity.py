"""What a build's fingerprint covers: a key that a later version adds changes none while it is neutral."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.chat_format.format import ChatFormat, Reasoning, SystemPrefix
from magpie_ray.config.identity import NEUTRAL, without_neutral
from magpie_ray.config.sampling import sampling_choices
from magpie_ray.config.schema import Config
from magpie_ray.dataset.build_record import fingerprint_of
from tests.support.configs import config, keys_of


def listed(text: str) -> set[str]:
    """Dotted keys, from lines of a section and its keys."""
    lines = [line.strip().partition(":") for line in text.strip().splitlines()]
    return {f"{section}.{key}".lstrip(".") for section, _, keys in lines for key in keys.split()}


# The keys of version 0.1.0, which every fingerprint covers. Never changed: a key that comes later stands in
# NEUTRAL or in OUTSIDE.
FIRST = listed(
    """
    : n_turns only_instruction end_with_user include_system_prompt system_prompt seed
    model: name pre_query_template chat_format thinking
    sampling.user: temperature top_p max_tokens top_k min_p repetition_penalty presence_penalty
    sampling.user: frequency_penalty first_line_only
    sampling.user.first_tokens: ban penalties temperature count
    sampling.assistant: temperature top_p max_tokens top_k min_p repetition_penalty presence_penalty
    sampling.assistant: frequency_penalty
    sampling.assistant.first_tokens: ban penalties temperature count
    sampling: reproducible
    engine: max_model_len dtype quantization extra
    acceptance: truncated_response context_full retry_from custom
    acceptance.rules: empty truncated own_answer self_talk
    acceptance.rules.role_marker: other_formats
    acceptance.rules.not_text: replacement_characters mojibake script_changes
    acceptance.rules.length: min_user max_user min_assistant max_assistant
    acceptance.rules.repetition: min_characters min_repeats max_ratio
    acceptance.rules.refusal: assistant
    acceptance.rules.repeated_turn: similarity min_characters
    acceptance.rules.language: is by_prompt min_confidence min_letters
    """
)

# Sections and keys that decide no row, or not by themselves (see Config.identity). The grid is in the
# fingerprint by itself.
SECTIONS_OUTSIDE = ("rounds.", "cluster.", "output.")
OUTSIDE = listed(
    """
    : num_rows
    inputs: path system_prompt weight storage_options
    model: revision trust_remote_code chat_template_name
    engine: device tensor_parallel_size pipeline_parallel_size max_num_seqs gpu_memory_utilization
    engine: vllm_metrics
    acceptance: max_attempts min_accept_rate rejects_per_reason
    """
)

# The fields of the chat format in version 0.1.0. Never changed.
FIRST_OF_FORMAT = listed(
    """
    chat_format: pre_query pre_query_ids user_to_assistant user_to_assistant_ids history_user_to_assistant
    chat_format: history_user_to_assistant_ids next_user next_user_ids user_stop_token_ids
    chat_format: assistant_stop_token_ids stop_strings system_role date role_markers special_token_ids
    chat_format: trimmed_roles blank_ids can_answer can_think multi_turn_problem
    chat_format.system_prefixes: system_prompt text ids last_user last_user_ids earlier_pre_query_ids
    chat_format.system_prefixes: earlier_next_user_ids
    chat_format.reasoning: opened opening closing answer_opening answer_closing kept
    """
)

CLASSIFY = (
    "a new key. If it changes rows, Config.identity has it, and NEUTRAL in config/identity.py says with "
    "which value rows are as before; if not, OUTSIDE in this file has it (docs/development.md, A config key)"
)


def fields_of_format(kind: Any = ChatFormat, prefix: str = "chat_format") -> Iterator[str]:
    for field in dataclasses.fields(kind):
        nested = next((part for part in (SystemPrefix, Reasoning) if part.__name__ in str(field.type)), None)
        if nested:
            yield from fields_of_format(nested, f"{prefix}.{field.name}")
        elif field.name != "warnings":
            yield f"{prefix}.{field.name}"


def unclassified(keys: set[str], first: set[str]) -> set[str]:
    """Keys that are neither among the first ones nor below one that has a neutral value."""
    return {key for key in keys - first if not any(f"{key}.".startswith(f"{late}.") for late in NEUTRAL)}


def test_every_key_of_the_config_is_in_the_fingerprint_or_said_not_to_be() -> None:
    keys = {key for key in keys_of(Config) if not key.startswith(SECTIONS_OUTSIDE)}
    assert unclassified(keys, FIRST | OUTSIDE) == set(), CLASSIFY
    assert keys >= FIRST | OUTSIDE
    assert not FIRST & OUTSIDE


def test_every_field_of_the_chat_format_was_there_first_or_has_a_neutral_value() -> None:
    assert unclassified(set(fields_of_format()), FIRST_OF_FORMAT) == set(), CLASSIFY
    assert set(fields_of_format()) >= FIRST_OF_FORMAT


def test_a_neutral_value_is_the_default_of_a_key_that_there_was_not_first() -> None:
    """Else a build of an earlier version is refused until its user sets the key."""
    # What inputs.path, system_prompt and weight name, and no key of the config.
    known = {*keys_of(Config), *fields_of_format(), "inputs.content"}
    for key in NEUTRAL:
        assert any(f"{other}.".startswith(f"{key}.") for other in known), key
        assert key not in FIRST | OUTSIDE | FIRST_OF_FORMAT, key
    identity = config(n_turns=2).identity()
    assert set(without_neutral(identity)) == {key for key in identity if key not in NEUTRAL}


def test_the_identity_of_a_config_has_only_keys_that_are_said_to_be_in_it() -> None:
    whole = ("acceptance.rules.", "engine.extra.", "sampling.user", "sampling.assistant")
    for key in config(n_turns=2).identity():
        assert key in FIRST | set(NEUTRAL) or key.startswith(whole), CLASSIFY


def test_a_later_key_is_left_out_of_the_identity_while_it_is_neutral() -> None:
    neutral = {"sampling.user.min_tokens": 0, "system_message": None, "chat_format.tools": []}
    before = {"sampling.user.top_p": 1.0, "chat_format.pre_query": "x"}
    assert without_neutral({**before, **neutral}, neutral) == before
    other = {**before, "sampling.user.min_tokens": 3, "chat_format.tools": ["y"]}
    assert without_neutral({**neutral, **other}, neutral) == other


def test_a_later_key_inside_of_lists_and_mappings_is_left_out_there() -> None:
    neutral = {
        "sampling.user.min_tokens": 0,
        "acceptance.rules.repetition.window": 5,
        "chat_format.system_prefixes.tools": None,
        "chat_format.reasoning.budget.tokens": 0,
    }
    before = {
        "sampling.user": [{"top_p": 1.0, "weight": 0.5}, {"top_p": 0.9, "weight": 0.5}],
        "acceptance.rules.repetition": {"min_repeats": 4},
        "chat_format.system_prefixes": [{"ids": [1, 2]}],
        "chat_format.reasoning": {"closing": "</think>", "empty": {}},
    }
    now = {
        "sampling.user": [
            {"top_p": 1.0, "min_tokens": 0, "weight": 0.5},
            {"top_p": 0.9, "min_tokens": 0, "weight": 0.5},
        ],
        "acceptance.rules.repetition": {"min_repeats": 4, "window": 5},
        "chat_format.system_prefixes": [{"ids": [1, 2], "tools": None}],
        "chat_format.reasoning": {"closing": "</think>", "empty": {}, "budget": {"tokens": 0}},
    }
    assert fingerprint_of(without_neutral(now, neutral)) == fingerprint_of(before)


@pytest.mark.parametrize("value", [False, 0.0, "0", None, []])
def test_only_the_neutral_value_itself_is_neutral(value: object) -> None:
    assert without_neutral({"a.b": value}, {"a.b": 0}) == {"a.b": value}


NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.just({}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(identity=st.dictionaries(NAMES, VALUES, max_size=3))
def test_where_no_key_is_later_nothing_is_left_out(identity: dict[str, Any]) -> None:
    assert without_neutral(identity, {}) == identity


@given(
    identity=st.dictionaries(NAMES, VALUES, max_size=3),
    neutral=st.dictionaries(st.sampled_from(["a", "a.b", "b.c", "a.b.c"]), st.integers(0, 2)),
)
def test_leaving_out_twice_leaves_out_no_more(identity: dict[str, Any], neutral: dict[str, object]) -> None:
    once = without_neutral(identity, neutral)
    assert without_neutral(once, neutral) == once


def test_settings_are_told_apart_by_a_key_that_only_some_of_them_have() -> None:
    mix = [{"temperature": 1.0, "weight": 0.5, "min_tokens": 4}, {"temperature": 1.0, "weight": 0.5}]
    named = sampling_choices({"sampling.user": mix}, neutral={"sampling.user.min_tokens": 0})
    assert named == [("user.min_tokens 4", 0.5), ("user.min_tokens 0", 0.5)]
