"""System prompts: each shape in which they may be written, and the paper's prompt."""

from typing import Any

import pytest

from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.types import SystemPrompt
from tests.support.configs import config


def test_the_papers_prompt_is_used_for_several_turns_only() -> None:
    made = config(n_turns=2)
    assert made.prompts == (SystemPrompt(key=None, text=MULTI_TURN_PROMPT, weight=1.0),)
    assert made.prompts_are_default
    assert "helpful AI assistant" in MULTI_TURN_PROMPT
    for other in (
        config(n_turns=1),
        config(n_turns=3, only_instruction=True),
        config(n_turns=2, system_prompt=""),
    ):
        assert other.prompts == ()
        assert not other.prompts_are_default
    assert not config(n_turns=2, system_prompt=MULTI_TURN_PROMPT).prompts_are_default


@pytest.mark.parametrize(
    ("written", "resolved"),
    [
        ("Be brief.", [(None, "Be brief.", 1.0)]),
        (["a", "b", "c", "d"], [(None, text, 0.25) for text in "abcd"]),
        ({"x": "a", "y": "b"}, [("x", "a", 0.5), ("y", "b", 0.5)]),
        ({"x": ["a", 3], "y": ["b", 1]}, [("x", "a", 0.75), ("y", "b", 0.25)]),
        (
            {"x": ["a", 0.7], "y": ["b", 0.2], "z": ["c", 0.1]},
            [("x", "a", 0.7), ("y", "b", 0.2), ("z", "c", 0.1)],
        ),
    ],
)
def test_each_shape_of_system_prompt_resolves_to_weighted_texts(written: Any, resolved: Any) -> None:
    made = config(system_prompt=written)
    assert [(prompt.key, prompt.text, prompt.weight) for prompt in made.prompts] == resolved
    assert made.has_prompt_keys == isinstance(written, dict)
    assert made.system_prompt == written


def test_two_ways_to_write_the_same_prompts_are_one_identity() -> None:
    one = config(system_prompt={"a": ["x", 0.7], "b": ["y", 0.2], "c": ["z", 0.1]})
    other = config(system_prompt={"a": ["x", 7], "b": ["y", 2], "c": ["z", 1]})
    assert one.identity() == other.identity()
