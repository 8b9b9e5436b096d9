"""Verdicts: what becomes of a completion of which a part is wanted; what the conversation goes on with."""

from collections.abc import Collection
from dataclasses import replace

import pytest

from magpie_ray.acceptance import build_rules, empty, role_marker, truncated
from magpie_ray.acceptance.rule import RuleContext
from magpie_ray.chat_format.format import Reasoning
from magpie_ray.config.acceptance import AcceptanceConfig, RoleMarkerRule
from magpie_ray.config.sampling import UserSettings
from magpie_ray.engine.protocol import Completion, Sampling
from magpie_ray.generation.conversation import Cohort
from magpie_ray.generation.recipe import Recipe, SamplingPair
from magpie_ray.generation.verdicts import Verdict, decide
from magpie_ray.types import FinishReason
from tests.support.conversations import conversation_of

OPENED = Reasoning(opened=True, opening="<think>", closing="</think>")
THINK, END_THINK, MARKER = 1001, 1002, 1003
SPECIAL = {THINK: "<think>", END_THINK: "</think>", MARKER: "<|user|>"}


def text_of(ids: list[int]) -> str:
    return "".join(SPECIAL.get(i) or chr(i) for i in ids).strip()


def ids_of(
    text: str, index: int = 1, system_prompt: str | None = None, generated: Collection[int] = ()
) -> list[int]:
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
        rules={
            "empty": empty.make_rule(True, RuleContext()),
            "truncated": truncated.make_rule(True, RuleContext()),
            "role_marker": role_marker.make_rule(
                RoleMarkerRule(),
                RuleContext(markers=("<|user|>", "<think>"), special_token_ids=frozenset(SPECIAL)),
            ),
        },
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


@pytest.mark.parametrize("reasoning", [None, OPENED])
def test_a_message_with_tokens_that_have_no_text_is_not_text_whatever_the_rules(
    reasoning: Reasoning | None,
) -> None:
    conversation = conversation_of(Cohort(members=1), accepted=1)
    conversation.sampling = recipe(None).samplings[0]
    made = replace(recipe(reasoning), knows=lambda ids: ord("~") not in ids, rules={})
    reasons = []
    for text in ("Hm.</think>Yes.", "H~m.</think>Yes.", "Hm.</think>Y~es."):
        completion = Completion(request_id=0, token_ids=ids_of(text), finish_reason="stop", num_tokens=20)
        [verdict] = decide(made, [(conversation, completion)])
        reasons.append(verdict.reason)
    assert reasons == [None, "not_text", "not_text"]


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


CHINESE, EMOJI, BURMESE = "好的。你好世界。", "Sure! 🎉 Go 👩‍👩‍👧 on 😀", "မြန်မာ စကား"


def of_bytes(text: str, size: int) -> list[list[int]]:
    """The bytes of a text as tokens of `size` bytes each, which are lists until they have ids."""
    data = text.encode()
    return [list(data[start : start + size]) for start in range(0, len(data), size)]


def byte_recipe(size: int = 1, *, fused: bool = False, reasoning: Reasoning | None = None) -> Recipe:
    """Tokens of `size` bytes. fused: bytes that are not all text are shown as one U+FFFD each."""

    def number(token: list[int]) -> int:
        return int.from_bytes([len(token), *token], "big")

    def decode(ids: list[int]) -> str:
        data = b"".join(token.to_bytes(size + 1, "big").lstrip(b"\0")[1:] for token in ids)
        if fused and (text := data.decode(errors="replace")) and "\ufffd" in text:
            ascii_end = max((i + 1 for i, byte in enumerate(data) if byte < 128), default=0)
            return (data[:ascii_end].decode() + "\ufffd" * (len(data) - ascii_end)).strip()
        return data.decode(errors="replace").strip()

    return replace(
        recipe(reasoning),
        decode=lambda messages: [decode(ids) for ids in messages],
        encode=lambda text, index, prompt, generated: [number(token) for token in of_bytes(text, size)],
        rules=build_rules(AcceptanceConfig()),
    )


def cut_verdict(made: Recipe, text: str, tokens: int, finish_reason: FinishReason = "length") -> Verdict:
    assert made.encode is not None
    ids = made.encode(text, 1, None, ())[:tokens]
    done = Completion(request_id=0, token_ids=ids, finish_reason=finish_reason, num_tokens=tokens)
    [verdict] = decide(made, [(conversation_of(Cohort(members=1), accepted=1), done)])
    return verdict


@pytest.mark.parametrize("text", [CHINESE, EMOJI, BURMESE])
@pytest.mark.parametrize(("size", "fused"), [(1, False), (1, True), (2, False), (4, False)])
def test_an_answer_that_is_cut_inside_a_character_loses_that_character_alone(
    text: str, size: int, fused: bool
) -> None:
    made = byte_recipe(size, fused=fused)
    for tokens in range(4, len(of_bytes(text, size))):
        verdict = cut_verdict(made, text, tokens)
        assert verdict.reason is None
        whole = text.encode()[: tokens * size].decode(errors="ignore")
        assert verdict.message.text == whole.strip()
        # Later turns read the text that the row has.
        assert made.decode([verdict.token_ids]) == [whole.strip()]
        assert (verdict.message.finish_reason, verdict.message.completion_tokens) == ("length", tokens)


def test_the_kept_tokens_are_those_that_were_generated_where_they_hold_whole_characters() -> None:
    made = byte_recipe()
    assert made.encode is not None
    ids = made.encode("ab你", 1, None, ())
    assert cut_verdict(made, "ab你", 4).token_ids == ids[:2]
    assert cut_verdict(made, "ab你", 5).token_ids == ids


@pytest.mark.parametrize(
    ("text", "tokens", "finish_reason"),
    [
        ("a\ufffd b 你", 9, "length"),  # one elsewhere
        ("ab" + "\ufffd" * 9, 28, "length"),  # a model that writes nothing else any more
        ("ab你", 4, "stop"),  # not cut: the model ended there
    ],
)
def test_other_characters_that_are_none_are_rejected_as_before(
    text: str, tokens: int, finish_reason: FinishReason
) -> None:
    assert cut_verdict(byte_recipe(), text, tokens, finish_reason).reason == "not_text"


def test_an_answer_behind_its_reasoning_loses_a_cut_character_too() -> None:
    text = "Hm 你</think>Ja 你"
    for reasoning in (OPENED, replace(OPENED, kept=True)):
        made = byte_recipe(reasoning=reasoning)
        made = replace(made, rules={})
        verdict = cut_verdict(made, text, len(text.encode()) - 1)
        assert (verdict.message.reasoning, verdict.message.text) == ("Hm 你", "Ja")
        kept = "Hm 你</think>Ja" if reasoning.kept else "Ja"
        assert made.decode([verdict.token_ids]) == [kept]


def marked_verdict(ids: list[int], *, answers: bool = True) -> tuple[Verdict, list[set[int]]]:
    """The verdict on these ids, and the markers that each encoded part is said to contain as tokens."""
    seen: list[set[int]] = []

    def encode(text: str, index: int, system_prompt: str | None, generated: Collection[int]) -> list[int]:
        seen.append(set(generated))
        return [ord(character) for character in text]

    conversation = conversation_of(Cohort(members=1), accepted=int(answers))
    settings = UserSettings(max_tokens=40, first_line_only=not answers)
    conversation.sampling = replace(conversation.sampling, user=Sampling(settings=settings))
    completion = Completion(request_id=0, token_ids=ids, finish_reason="stop", num_tokens=len(ids))
    made = replace(recipe(OPENED), encode=encode, markers=SPECIAL, rules={})
    [verdict] = decide(made, [(conversation, completion)])
    return verdict, seen


def spelled(text: str) -> list[int]:
    return [ord(character) for character in text]


def test_a_marker_that_a_message_spells_out_is_text_in_later_turns() -> None:
    answer = [*spelled("Hm"), END_THINK, *spelled("\nA <|user|> and </think> end it.")]
    assert marked_verdict(answer)[1] == [set()]
    line = [*spelled("What is <|user|>?\n"), MARKER]
    assert marked_verdict(line, answers=False)[1] == [set()]


def test_a_marker_that_the_model_generated_stays_one() -> None:
    answer = [*spelled("Hm"), MARKER, END_THINK, *spelled("Yes"), MARKER, *spelled(" <|user|>")]
    assert marked_verdict(answer)[1] == [{MARKER}]
    line = [*spelled("What is"), MARKER, *spelled("?\nB")]
    assert marked_verdict(line, answers=False)[1] == [{MARKER}]
