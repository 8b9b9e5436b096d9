"""What a row says, and which rows are refused, with the reason."""

from typing import Any

import pytest

from magpie_ray.sources.messages import WrongRowError, content_of
from magpie_ray.sources.shapes import Shape

OPENAI = Shape(column="messages")
SHAREGPT = Shape(column="conversations")
ALPACA = Shape(column="instruction", one_turn=True)


def said(role: str, content: Any = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


def refusal(values: dict[str, Any], shape: Shape = OPENAI) -> str:
    with pytest.raises(WrongRowError) as caught:
        content_of(values, shape)
    return str(caught.value)


def test_sharegpt_names_of_roles_are_known() -> None:
    named = [("system", "s"), ("human", "a"), ("gpt", "b"), ("user", "c")]
    content = content_of({"conversations": [{"from": name, "value": text} for name, text in named]}, SHAREGPT)
    assert content.messages == (("user", "a"), ("assistant", "b"), ("user", "c"))
    assert content.system_prompt == "s"


def test_the_input_of_alpaca_follows_the_instruction_after_a_blank_line() -> None:
    row = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    assert content_of(row, ALPACA).messages == (("user", "Add.\n\n1, 2"), ("assistant", "3"))
    for more in ("", " \n", None):
        assert content_of({**row, "input": more}, ALPACA).messages[0] == ("user", "Add.")
    assert content_of({"instruction": "a", "response": None, "output": "b"}, ALPACA).messages[1:] == (
        ("assistant", "b"),
    )
    assert content_of({"instruction": "a"}, ALPACA).messages == (("user", "a"),)


def test_a_system_message_wins_over_the_column_system_prompt() -> None:
    messages = [said("user")]
    with_both = {"messages": [said("developer", "in"), *messages], "system_prompt": "beside"}
    assert content_of(with_both, OPENAI).system_prompt == "in"
    assert content_of({"messages": messages, "system_prompt": "beside"}, OPENAI).system_prompt == "beside"
    blank = {"messages": [said("system", " "), *messages], "system_prompt": ""}
    assert content_of(blank, OPENAI).system_prompt is None


def test_text_parts_of_openai_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image_url": None}, "c"]
    assert content_of({"messages": [said("user", parts)]}, OPENAI).messages == (("user", "a\nb\nc"),)


def test_several_answers_stand_beside_the_messages() -> None:
    shape = Shape(column="messages", responses=True)
    row = {"messages": [said("user")], "responses": ["a", None]}
    assert content_of(row, shape).responses == ("a", None)
    assert content_of({**row, "responses": None}, shape).responses == ()
    assert content_of(row, OPENAI).responses == ()
    assert "responses is 'a', must be a list of texts" in refusal({**row, "responses": "a"}, shape)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "has no messages"),
        (None, "has no messages"),
        ("[]", "has no messages"),
        ("no JSON", "is text that is no JSON list of messages"),
        ('{"role": "user"}', "must be a list of messages"),
        ("[" * 100_000, "is text that is no JSON list of messages"),
        (["hello"], "message 1 is 'hello', must be an object with role and content"),
        ([said("system")], "a system message alone, and no user message"),
        ([said("assistant")], "message 1 is of the assistant, must be the user's"),
        ([said("user"), said("user")], "message 2 is of the user, must be the assistant's"),
        ([said("user"), said("system")], "message 2 is a system message, which stands before all others"),
        ([said("system"), said("system")], "message 2 is a system message"),
        ([said("user"), said("tool")], "message 2 has the role 'tool', must be user, assistant or system"),
        ([{"content": "x"}], "message 1 has the role None"),
        ([said("user"), said("assistant", None)], "message 2: the content is None, must be text"),
        ([said("user", 7)], "the content is 7, must be text"),
        ([said("user", [])], "the content is [], must be text"),
        (
            [said("user", [{"type": "image_url", "image_url": {}}])],
            "a part of type image_url, and only texts",
        ),
        ([said("user", [{"type": "text"}])], "the part {'type': 'text'}"),
        ([said("user", " \n")], "message 1, which is the user's, is empty"),
        ([said("user", "\ud800")], "half of a surrogate pair"),
    ],
)
def test_a_row_that_can_not_be_used_is_refused_with_its_reason(messages: Any, reason: str) -> None:
    assert reason in refusal({"messages": messages})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "instruction is null: there is no user message"),
        ({"instruction": ""}, "is empty"),
        ({"instruction": ["x"]}, "instruction is ['x'], must be text or null"),
        ({"instruction": "x", "input": 1}, "input is 1, must be text or null"),
        ({"instruction": "x", "output": {}}, "output is {}, must be text or null"),
        ({"instruction": "x", "system_prompt": 1}, "system_prompt is 1, must be text or null"),
    ],
)
def test_a_wrong_instruction_is_refused_by_its_column(row: dict[str, Any], reason: str) -> None:
    assert reason in refusal(row, ALPACA)


def test_rows_of_a_build_may_have_an_empty_message() -> None:
    row = {"messages": [("user", ""), ("assistant", "x")]}
    assert content_of(row, OPENAI, strict=False).messages == (("user", ""), ("assistant", "x"))
