"""Conversations in the terminal: reasoning stands before its own answer, what was rejected is marked."""

import io

from rich.console import Console, RenderableType

from magpie_ray.cli.views.rows import reject_panel, row_panel


def shown(panel: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="standard", width=60).print(panel)
    return out.getvalue()


def test_reasoning_is_dimmed_and_stands_before_its_own_answer() -> None:
    said = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2")]
    conversation = [{"role": role, "content": content} for role, content in said]
    out = shown(row_panel({"row_id": 1, "conversation": conversation, "reasoning": ["", "because"]}))
    assert out.count("\x1b[2m") == 1
    assert out.index("A1") < out.index("Q2") < out.index("\x1b[2mbecause") < out.index("A2")


def test_what_was_rejected_is_red_behind_what_it_followed_and_the_title_says_why() -> None:
    reject = {
        "row_id": 5,
        "attempt": 2,
        "turn": 2,
        "role": "user",
        "reason": "re\x1b[2Jfusal",
        "system_prompt_key": "math",
        "messages": [{"role": "user", "content": "Q1"}, {"role": "assistant", "content": "A1"}],
        "text": "I can't\x1b[2J",
    }
    out = shown(reject_panel(reject))
    assert r"re\x1b[2Jfusal: row 5, attempt 2, turn 2, math" in out
    assert "\x1b[31mI can't\\x1b[2J" in out
    assert out.index("Q1") < out.index("A1") < out.index("user, rejected") < out.index("I can't")


def test_a_message_that_was_cut_says_so() -> None:
    said = [{"role": role, "content": role} for role in ("system", "user", "assistant")]
    row = {"row_id": 1, "conversation": said, "finish_reasons": ["stop", "length"]}
    out = io.StringIO()
    Console(file=out, width=80).print(row_panel(row))
    assert "assistant, cut" in out.getvalue()
    assert "user, cut" not in out.getvalue()
    assert "system, cut" not in out.getvalue()
