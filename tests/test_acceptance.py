"""Which messages count."""

import pytest

from magpie_ray.acceptance import Dialogue, Utterance, reason_to_reject, remedy, rules
from magpie_ray.types import FinishReason, Role

BOTH: frozenset[Role] = frozenset({"user", "assistant"})
USER: frozenset[Role] = frozenset({"user"})


def said(
    text: str, *, role: Role = "user", finish: FinishReason = "stop", token_ids: tuple[int, ...] = (5,)
) -> Utterance:
    return Utterance(role=role, text=text, token_ids=token_ids, finish_reason=finish)


def verdict(utterance: Utterance, *, truncated_roles: frozenset[Role] = USER) -> str | None:
    found = rules(
        markers=("<|user|>", "<|end|>"), special_token_ids=frozenset({1, 2}), truncated_roles=truncated_roles
    )
    return reason_to_reject(utterance, Dialogue(), found)


def test_an_ordinary_message_is_accepted() -> None:
    assert verdict(said("What is a fjord?")) is None


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0"])
def test_a_message_of_white_space_is_empty(text: str) -> None:
    assert verdict(said(text)) == "empty"


def test_a_cut_user_message_is_rejected_and_a_cut_answer_kept() -> None:
    assert verdict(said("Why", finish="length")) == "truncated"
    assert verdict(said("Because", role="assistant", finish="length")) is None


def test_a_cut_answer_is_rejected_where_the_config_says_so() -> None:
    cut = said("Because", role="assistant", finish="length")
    assert verdict(cut, truncated_roles=BOTH) == "truncated"


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_marker_of_the_template_inside_a_message_is_rejected(role: Role) -> None:
    assert verdict(said("Hello <|user|> there", role=role)) == "role_marker"


def test_a_special_token_is_found_by_its_id_whatever_it_decodes_to() -> None:
    assert verdict(said("Hello", token_ids=(5, 2, 6))) == "role_marker"


def test_the_first_rule_that_finds_something_gives_the_reason() -> None:
    assert verdict(said(" ", finish="length", token_ids=(1,))) == "empty"
    assert verdict(said("<|end|>", finish="length", token_ids=(1,))) == "truncated"


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_remedies_name_the_key_of_the_role_concerned(role: Role) -> None:
    assert f"raise sampling.{role}.max_tokens" in remedy("truncated", role)
    assert f"lower sampling.{role}.temperature" in remedy("role_marker", role)
    assert f"raise sampling.{role}.temperature" in remedy("empty", role)
    assert "engine.max_model_len" in remedy("context_full", role)
    assert "loosen the rule" in remedy("a rule of the user's own", role)
