"""Verdicts: what becomes of a completion of which a part is wanted; what the conversation goes on with."""

from dataclasses import replace

import pytest

from magpie_ray.acceptance import empty, role_marker, truncated
from magpie_ray.acceptance.rule import RuleContext
from magpie_ray.chat_format.format import Reasoning
from magpie_ray.config.acceptance import AcceptanceConfig, RoleMarkerRule
from magpie_ray.config.sampling import UserSettings
from magpie_ray.engine.protocol import Completion, Sampling
from magpie_ray.generation.conversation import Cohort, Recipe, SamplingPair
from magpie_ray.generation.verdicts import Verdict, decide
from magpie_ray.types import FinishReason
from tests.support.conversations import conversation_of

OPENED = Reasoning(opened=True, opening="<think>", closing="</think>")
THINK, END_THINK, MARKER = 1001, 1002, 1003
SPECIAL = {THINK: "<think>", END_THINK: "</think>", MARKER: "<|user|>"}


def text_of(ids: list[int]) -> str:
    return "".join(SPECIAL.get(i) or chr(i) for i in ids).strip()


def ids_of(text: str, index: int = 1, system_prompt: str | None = None) -> list[int]:
    for token_id, token in SPECIAL.items():
        text = text.replace(token, chr(token_id))
    return [ord(character) for character in text]


def recipe(reasoning: Reasoning | None) -> Recipe:
    sampling = Sampling(settings=UserSettings(temperature=0.0, max_tokens=40))
    return Recipe(
        chat_format=None,  # type: ignore[arg-type]  # verdicts need no prompts
        decode=lambda messages: [text_of(ids) for ids in messages],
        encode=ids_of,
        reasoning=reasoning,
        rules=(
            empty.make_rule(True, RuleContext()),
            truncated.make_rule(True, RuleContext()),
            role_marker.make_rule(
                RoleMarkerRule(),
                RuleContext(markers=("<|user|>", "<think>"), special_token_ids=frozenset(SPECIAL)),
            ),
        ),
        samplings=(SamplingPair(user=sampling, assistant=sampling),),
        messages_per_row=2,
        prompts=(),
        seed=0,
        reproducible=False,
        acceptance=AcceptanceConfig(max_attempts=2),
    )


def verdict_of(
    text: str,
    reasoning: Reasoning | None = OPENED,
    *,
    answers: bool = True,
    first_line_only: bool = False,
    finish_reason: FinishReason = "stop",
    num_tokens: int = 40,
) -> Verdict:
    conversation = conversation_of(Cohort(members=1), accepted=int(answers))
    pair = recipe(None).samplings[0]
    settings = UserSettings(max_tokens=40, first_line_only=first_line_only)
    conversation.sampling = replace(pair, user=replace(pair.user, settings=settings))
    completion = Completion(
        request_id=0, token_ids=ids_of(text), finish_reason=finish_reason, num_tokens=num_tokens
    )
    [verdict] = decide(recipe(reasoning), [(conversation, completion)])
    return verdict


def test_reasoning_is_split_off_and_the_conversation_goes_on_without_it() -> None:
    verdict = verdict_of("Let me see.\n</think>\n\nYes.")
    assert verdict.reason is None
    assert (verdict.message.reasoning, verdict.message.text) == ("Let me see.", "Yes.")
    assert verdict.token_ids == ids_of("Yes.")
    assert verdict.message.completion_tokens == 40


def test_reasoning_stays_in_the_conversation_where_the_template_keeps_it() -> None:
    verdict = verdict_of("Let me see.</think>Yes.", replace(OPENED, kept=True))
    assert verdict.message.text == "Yes."
    assert verdict.token_ids == ids_of("Let me see.</think>Yes.")


@pytest.mark.parametrize(
    ("finish_reason", "num_tokens", "reason"),
    [
        ("length", 40, "unfinished_reasoning"),
        ("stop", 12, "unfinished_reasoning"),
        ("length", 12, "context_full"),
    ],
)
def test_reasoning_that_never_closes_is_rejected_for_that(
    finish_reason: FinishReason, num_tokens: int, reason: str
) -> None:
    verdict = verdict_of("Let me see", finish_reason=finish_reason, num_tokens=num_tokens)
    assert verdict.reason == reason
    assert verdict.message.text == "Let me see"  # the example of the rejection


def test_an_answer_that_is_empty_behind_its_reasoning_is_empty() -> None:
    assert verdict_of("Let me see.</think>\n").reason == "empty"


@pytest.mark.parametrize(
    "text", ["Hm <|user|></think>Yes.", "Hm</think>Yes.<|user|>", "Hm</think><think>Yes."]
)
def test_a_marker_in_the_reasoning_or_behind_it_is_one(text: str) -> None:
    assert verdict_of(text).reason == "role_marker"


def test_without_thinking_or_in_a_user_message_a_block_of_reasoning_is_a_marker() -> None:
    assert verdict_of("<think>Hm</think>Yes.", None).reason == "role_marker"
    assert verdict_of("<think>Hm</think>Why?", answers=False).reason == "role_marker"


def test_an_answer_without_reasoning_keeps_the_ids_it_was_generated_with() -> None:
    verdict = verdict_of("Yes.", replace(OPENED, opened=False))
    assert (verdict.message.reasoning, verdict.message.text, verdict.token_ids) == (
        "",
        "Yes.",
        ids_of("Yes."),
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("One?\nTwo.", "One?"),
        ("\n\n One? \r\nTwo.", "One?"),
        ("One?\u2028Two.", "One?"),
        ("One?\n<|user|>Two.", "One?"),
        ("One?", "One?"),
    ],
)
@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_a_user_message_may_end_at_its_first_line_break(
    text: str, line: str, finish_reason: FinishReason
) -> None:
    verdict = verdict_of(text, answers=False, first_line_only=True, finish_reason=finish_reason)
    assert (verdict.message.text, verdict.token_ids) == (line, ids_of(line))
    if line == text:
        assert verdict.message.finish_reason == finish_reason
    else:
        # What was cut off is neither checked nor missed, but it was generated.
        assert (verdict.message.finish_reason, verdict.reason) == ("stop", None)
        assert verdict.message.completion_tokens == 40


def test_other_messages_keep_all_their_lines_and_an_empty_one_is_empty() -> None:
    assert verdict_of("One?\nTwo.", answers=False).message.text == "One?\nTwo."
    assert verdict_of("One.\nTwo.", None, first_line_only=True).message.text == "One.\nTwo."
    assert verdict_of("\n \n", answers=False, first_line_only=True).reason == "empty"
