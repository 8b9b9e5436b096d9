"""Rules of the user's own: from the config and from Python, checked when they are loaded and at each call."""

import pickle
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.acceptance import Dialogue, Rule, Utterance, build_rules, reason_to_reject
from magpie_ray.acceptance.custom import custom_rule
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.loading import parse_config
from magpie_ray.errors import ConfigError, RuleError
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.types import Message, Role

WORDY = Utterance(role="user", text="one two three four", token_ids=(), finish_reason="stop")


def too_wordy(message: Utterance, conversation: Dialogue, limit: int = 3) -> str | None:
    return "too_wordy" if len(message.text.split()) > limit else None


def failing(message: Utterance, conversation: Dialogue) -> str | None:
    raise KeyError("score")


def yes_or_no(message: Utterance, conversation: Dialogue) -> Any:
    return message.text == "one two three four"


def takes_too_little(message: Utterance) -> None:
    return None


class Rules:
    """Has a rule as a method."""

    @staticmethod
    def is_wordy(message: Utterance, conversation: Dialogue) -> str | None:
        return too_wordy(message, conversation)


def custom(*rules: Any) -> AcceptanceConfig:
    return AcceptanceConfig.model_validate({"custom": list(rules)})


def last_rule(*rules: Any) -> Rule:
    return [*build_rules(custom(*rules)).values()][-1]


def test_a_rule_is_named_by_its_import_path_and_tried_after_the_others() -> None:
    rules = build_rules(custom(f"{__name__}:too_wordy"))
    assert list(rules)[-1] == f"{__name__}:too_wordy"
    assert reason_to_reject(WORDY, Dialogue(), [*rules.values()]) == "too_wordy"


def test_thresholds_are_given_as_keywords() -> None:
    assert last_rule({f"{__name__}:too_wordy": {"limit": 4}})(WORDY, Dialogue()) is None
    assert last_rule({f"{__name__}:too_wordy": {"limit": 1}})(WORDY, Dialogue()) == "too_wordy"


def test_a_function_stands_for_its_import_path() -> None:
    assert custom(too_wordy).custom == [f"{__name__}:too_wordy"]
    assert custom(Rules.is_wordy).custom == [f"{__name__}:Rules.is_wordy"]
    assert last_rule(Rules.is_wordy)(WORDY, Dialogue()) == "too_wordy"


def by_length(message: Utterance, conversation: Dialogue) -> str | None:
    return f"length {len(message.text)}"


def test_a_rule_that_puts_values_into_its_reasons_is_stopped() -> None:
    rule = custom_rule(f"{__name__}:by_length", {}, most_reasons=3)
    for text in ("a", "ab", "abc", "a"):
        assert rule(replace(WORDY, text=text), Dialogue()) == f"length {len(text)}"
    with pytest.raises(RuleError, match="by_length has returned more than 3 different reasons, such as"):
        rule(replace(WORDY, text="abcd"), Dialogue())


@pytest.mark.parametrize("function", [lambda message, conversation: None, too_wordy.__call__])
def test_a_function_that_workers_could_not_import_is_refused(function: object) -> None:
    with pytest.raises(
        ConfigError, match=r"acceptance\.custom\.0: .*of a module or of the script, which workers find"
    ):
        parse_config({"num_rows": 1, "acceptance": {"custom": [function]}})


def test_a_module_of_the_current_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules_beside_the_command.py").write_text(
        "def no_questions(message, conversation):\n    return 'question' if '?' in message.text else None\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    rule = last_rule("rules_beside_the_command:no_questions")
    assert (
        rule(Utterance(role="user", text="Why?", token_ids=(), finish_reason="stop"), Dialogue())
        == "question"
    )


def test_a_rule_that_fails_is_an_error_that_names_rule_and_message() -> None:
    with pytest.raises(RuleError) as caught:
        last_rule(failing)(WORDY, Dialogue())
    error = str(caught.value)
    assert f"{__name__}:failing failed with KeyError: 'score'" in error
    assert "the user's message of turn 1: 'one two three four'" in error
    assert isinstance(caught.value.__cause__, KeyError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == error


def test_a_rule_that_ends_the_program_is_an_error_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(message: Utterance, conversation: Dialogue) -> str | None:
        raise SystemExit(5)

    monkeypatch.setattr(sys.modules[__name__], "yes_or_no", leave)
    with pytest.raises(RuleError, match=r"yes_or_no failed with SystemExit: 5"):
        last_rule(f"{__name__}:yes_or_no")(WORDY, Dialogue())


@pytest.mark.parametrize("returned", [True, 7, "", "two\nlines", "x" * 61])
def test_what_is_no_reason_is_an_error(returned: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "yes_or_no", lambda message, conversation: returned)
    with pytest.raises(RuleError, match=r"yes_or_no returned .*must be None or a reason"):
        last_rule(f"{__name__}:yes_or_no")(WORDY, Dialogue())


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (f"{__name__}:not_there", r"has no not_there"),
        ("no_such_module:rule", r"there is no module no_such_module"),
        (f"{__name__}:WORDY", r"must be a function \(message, conversation\)"),
        (f"{__name__}:takes_too_little", r"can't be called with \(message, conversation\)"),
        ({f"{__name__}:too_wordy": {"limt": 4}}, r"can't be called with \(.*limt=4\)"),
    ],
)
def test_what_is_no_rule_is_refused_before_anything_starts(rule: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=r"acceptance\.custom: .*" + message):
        build_rules(custom(rule))
    config = parse_config(
        {"num_rows": 1, "acceptance": {"custom": [rule]}, "model": {"name": "not-looked/up"}}
    )
    with pytest.raises(ConfigError, match=message):
        resolve_build(config)


def test_a_conversation_is_a_sequence_of_its_messages() -> None:
    spoken: list[tuple[Role, str]] = [("user", "Why?"), ("assistant", "So.")]
    said = [
        Message(role=role, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1)
        for role, text in spoken
    ]
    conversation = Dialogue(messages=tuple(said))
    assert (len(conversation), list(conversation), conversation[-1].text) == (2, said, "So.")
    assert [message.role for message in conversation[:1]] == ["user"]
    assert not Dialogue()
