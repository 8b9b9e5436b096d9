"""The split of a generated answer into reasoning and content."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.chat_format.format import Reasoning

THINK = Reasoning(opened=False, opening="<think>", closing="</think>")
OPENED = replace(THINK, opened=True)
CHANNELS = Reasoning(
    opened=False,
    opening="<|channel|>analysis<|message|>",
    closing="<|end|><|start|>assistant<|channel|>final<|message|>",
    answer_opening="<|channel|>final<|message|>",
    answer_closing="<|end|>",
)
TAGGED = replace(THINK, answer_opening="<response>", answer_closing="</response>")


@pytest.mark.parametrize(
    ("reasoning", "text", "expected"),
    [
        (THINK, "<think>\nHm.\n</think>\n\nYes.", ("Hm.", "Yes.")),
        (THINK, "<think>\n\n</think>\n\nYes.", ("", "Yes.")),
        (THINK, "Yes.", ("", "Yes.")),
        (THINK, "Hm.</think>Yes.", ("Hm.", "Yes.")),
        (THINK, "<think>\nHm.", None),
        (OPENED, "Hm.\n</think>\nYes.", ("Hm.", "Yes.")),
        (OPENED, "<think>Hm.</think>Yes.", ("Hm.", "Yes.")),
        (OPENED, "Hm.", None),
        (CHANNELS, CHANNELS.opening + "Hm." + CHANNELS.closing + "Yes.", ("Hm.", "Yes.")),
        (CHANNELS, CHANNELS.opening + "Hm." + CHANNELS.closing + "Yes.<|end|><|start|>", ("Hm.", "Yes.")),
        (CHANNELS, "<|channel|>final<|message|>Yes.", ("", "Yes.")),
        (CHANNELS, CHANNELS.opening + "Hm.<|end|>", None),
        (TAGGED, "<think>Hm.</think><response>Yes.</response>", ("Hm.", "Yes.")),
        (TAGGED, "<think>Hm.</think>Yes.", ("Hm.", "Yes.")),
    ],
)
def test_an_answer_is_split_where_its_reasoning_closes(
    reasoning: Reasoning, text: str, expected: tuple[str, str] | None
) -> None:
    assert reasoning.split(text) == expected


words = st.text(st.characters(categories=["L", "N", "Zs"])).map(str.strip)


@given(st.sampled_from([THINK, OPENED, CHANNELS, TAGGED]), words, words, st.sampled_from(["", "\n", "\n\n"]))
def test_what_is_put_together_comes_apart_again(
    form: Reasoning, thought: str, content: str, gap: str
) -> None:
    opening = "" if form.opened else form.opening
    assert form.split(opening + gap + thought + gap + form.closing + gap + content) == (thought, content)
