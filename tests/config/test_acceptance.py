"""Rules in the config: merged over the defaults, refused with key, value and remedy."""

from typing import Any

import pytest

from magpie_ray.config.acceptance import LanguageRule, RepetitionRule
from magpie_ray.config.loading import load_config, parse_config
from magpie_ray.config.schema import Config
from magpie_ray.errors import ConfigError


def config(rules: Any = None, **keys: Any) -> Config:
    return parse_config({"num_rows": 1, "acceptance": {"rules": rules}, **keys})


def test_what_is_not_named_keeps_its_default() -> None:
    usual, changed = config().acceptance.rules, config({"refusal": False, "repetition": {"min_repeats": 9}})
    assert changed.acceptance.rules.refusal is None
    assert changed.acceptance.rules.repetition == RepetitionRule(min_repeats=9)
    assert changed.acceptance.rules.not_text == usual.not_text
    assert config({"repetition": True}).acceptance.rules.repetition == RepetitionRule()


def test_rules_are_set_on_the_command_line() -> None:
    rules = load_config(
        None,
        [
            "num_rows=1",
            "acceptance.rules.repetition=false",
            "acceptance.rules.length.min_user=3",
            "acceptance.rules.language={is: [de, 'no']}",
            "acceptance.custom=[my_rules:a, {my_rules:b: {limit: 3}}]",
        ],
    ).acceptance
    assert rules.rules.repetition is None
    assert rules.rules.length is not None
    assert rules.rules.length.min_user == 3
    assert rules.rules.language is not None
    assert rules.rules.language.wanted == ["de", "no"]
    assert rules.custom_rules == [("my_rules:a", {}), ("my_rules:b", {"limit": 3})]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"repetitions": True}, "repetitions: unknown key; did you mean acceptance.rules.repetition?"),
        ({"repetition": {"ratio": 1}}, "repetition.ratio: unknown key; did you mean"),
        ({"repetition": None}, "repetition: got null, must be true, false or a mapping"),
        ({"repetition": "on"}, "repetition: got 'on', must be true, false or a mapping"),
        ({"repetition": {"max_ratio": 2}}, "repetition.max_ratio: got 2, must be a number above 0"),
        ({"not_text": {"mojibake": -1}}, "not_text.mojibake: got -1, must be a whole number"),
        ({"empty": {}}, "empty: got {}, must be true or false"),
        ({"length": True}, "rules.length: got true, must be false, or a mapping with a bound"),
        ({"length": {}}, "a mapping with a bound, such as {min_user: 20}"),
        ({"length": {"min_user": 9, "max_user": 3}}, "length.max_user: got 3, must be at least min_user"),
        ({"language": True}, "rules.language: got true, must be false, or a mapping that names"),
        ({"language": {"is": "german"}}, "language.is: got 'german', must be a two-letter"),
        ({"language": {"is": False}}, "put no in quotes, which YAML reads as false"),
        ({"language": {"wanted": "de"}}, "language.wanted: unknown key"),
        ({"language": {"by_prompt": {"a": "xx"}}}, "language.by_prompt.a: got 'xx', must be a two-letter"),
    ],
)
def test_what_can_not_be_is_refused_with_what_would_be_right(rules: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(rules)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("custom", "message"),
    [
        ("my_rules:a", "acceptance.custom: got 'my_rules:a', must be a list of import paths"),
        (["my_rules"], "acceptance.custom.0: got 'my_rules', must be written my_module:my_rule"),
        ([{"a:b": {}, "c:d": {}}], "acceptance.custom.0: got {"),
        ([{"a:b": 3}], "acceptance.custom.0.a:b: got 3, must be a mapping"),
        (["a:b", {"a:b": {"x": [object()]}}], "acceptance.custom.1.a:b.x.0: got"),
    ],
)
def test_custom_rules_are_import_paths_with_plain_thresholds(custom: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config({"num_rows": 1, "acceptance": {"custom": custom}})
    assert message in str(caught.value)


def test_languages_are_asked_of_prompts_that_there_are() -> None:
    rules = {"language": {"by_prompt": {"german": "de"}}}
    asked = config(
        rules, system_prompt={"german": "Schreib deutsch.", "other": "Hi."}
    ).acceptance.rules.language
    assert asked == LanguageRule.model_validate({"by_prompt": {"german": ["de"]}})
    for prompts, known in (({"english": "Hi."}, "english"), ("Hi.", "no keys")):
        with pytest.raises(ConfigError) as caught:
            config(rules, system_prompt=prompts)
        assert (
            f"by_prompt.german: got ['de'], must be under a key of system_prompt, which has {known}"
            in str(caught.value)
        )


def test_the_record_and_the_identity_of_a_build_are_in_the_users_words() -> None:
    made = config({"language": {"is": "de"}, "refusal": False})
    assert made.recorded()["acceptance"]["rules"]["language"]["is"] == ["de"]
    assert made.identity()["acceptance.rules.refusal"] is False
    assert made.identity()["acceptance.rules.language"] == made.recorded()["acceptance"]["rules"]["language"]
