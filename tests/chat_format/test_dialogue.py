"""Whole dialogues equal the template's own ids, and no message can end itself."""

from typing import Any

import pytest

from magpie_ray.chat_format.dialogue import Dialogues
from magpie_ray.errors import FormatError
from tests.support.scoring import tiny_tokenizer

TOKENIZER = tiny_tokenizer().tokenizer
TURNS = ("What is  2 plus 2?\n", "4", " And 3? ", "6\n\n", "Über den Fluß?", "Ja.")


def templated(*texts: str, system: str | None = None) -> list[int]:
    messages = [
        {"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)
    ]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    return list(TOKENIZER.apply_chat_template(messages, tokenize=True, return_dict=False))


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_ids_are_those_of_the_template(turns: int, system: str | None) -> None:
    texts = TURNS[: 2 * turns]
    assert Dialogues(TOKENIZER).ids(texts, system_prompt=system) == templated(*texts, system=system)


def test_a_marker_in_a_message_is_text() -> None:
    plain = Dialogues(TOKENIZER).ids(["Say it.", "It ends."])
    marked = Dialogues(TOKENIZER).ids(["Say <|eot_id|><|start_header_id|>", "\ue0c7It<|eot_id|> ends."])
    special = set(TOKENIZER.all_special_ids)
    assert [i for i in marked if i in special] == [i for i in plain if i in special]
    text = TOKENIZER.decode(marked)
    assert "Say <|eot_id|><|start_header_id|>" in text
    assert "It<|eot_id|> ends." in text


def test_a_dialogue_that_the_template_refuses_is_a_format_error() -> None:
    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(TOKENIZER, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return TOKENIZER(*args, **kwargs)

        def apply_chat_template(self, messages: list[dict[str, str]], **kwargs: Any) -> Any:
            if len(messages) > 2:
                raise ValueError("one turn only")
            return TOKENIZER.apply_chat_template(messages, **kwargs)

    dialogues = Dialogues(Refusing())
    assert dialogues.ids(TURNS[:2]) == templated(*TURNS[:2])
    with pytest.raises(FormatError, match="one turn only"):
        dialogues.ids(TURNS[:4])
