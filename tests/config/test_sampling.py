"""The section `sampling`: first tokens, and settings with weights that rows choose from."""

from typing import Any

import pytest

from magpie_ray.config.loading import parse_config
from magpie_ray.dataset.columns import columns_of
from tests.support.configs import config, message_of


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("user", {"first_tokens": {"penalties": {"Sure": 1}}}),
        ("assistant", {"first_tokens": {"ban": ["#"]}}),  # answers are greedy
        ("user", {"first_tokens": {"ban": ["#"]}, "top_k": 1}),
        ("user", [{}, {"first_tokens": {"ban": ["#"]}, "temperature": 0}]),
    ],
)
def test_rules_that_need_logit_biases_are_refused_under_speculative_decoding(
    role: str, settings: object
) -> None:
    speculation = {"engine": {"extra": {"speculative_config": {"method": "ngram"}}}}
    line = message_of({"num_rows": 1, "sampling": {role: settings}} | speculation)
    assert "engine.extra.speculative_config: got {'method': 'ngram'}, must be left out: under" in line
    assert f"sampling.{role}.first_tokens needs for penalties" in line


@pytest.mark.parametrize(
    ("role", "settings"),
    [
        ("user", {"first_tokens": {"ban": ["#"]}}),
        ("user", {"first_tokens": {"temperature": 1.2}, "temperature": 0}),
        ("assistant", {"first_tokens": {"ban": ["Sure"], "temperature": 0.7}}),
        ("assistant", {"first_tokens": {"count": 2}}),
    ],
)
@pytest.mark.parametrize(
    "extra", [{"speculative_config": {"method": "ngram"}}, {"watermark_config": {"x": 1}}]
)
def test_other_rules_go_with_every_argument_of_the_engine(
    role: str, settings: object, extra: dict[str, Any]
) -> None:
    assert parse_config({"num_rows": 1, "sampling": {role: settings}, "engine": {"extra": extra}})


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


def test_settings_in_a_list_are_chosen_by_weight_and_named_in_a_column() -> None:
    made = config(
        sampling={
            "user": [{"temperature": 1.0, "weight": 3}, {"temperature": 1.25, "top_p": 0.99, "weight": 1}]
        }
    )
    [(plain, often), (hot, rarely)] = made.sampling.mix("user")
    assert (plain.temperature, often, hot.top_p, rarely) == (1.0, 0.75, 0.99, 0.25)
    assert made.sampling.mix("assistant")[0][0].temperature == 0.0
    assert "sampling_key" in columns_of(made)
    assert "sampling_key" not in columns_of(config())


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
    assert columns_of(plain) == columns_of(listed)


def test_a_build_never_mixes_two_mixes() -> None:
    mixes = [
        config(sampling={"user": [{"top_p": 0.9, "weight": weight}, {"weight": 1}]}) for weight in (1, 2, 2.0)
    ]
    one, other, same = (made.identity() for made in mixes)
    assert one != other == same
