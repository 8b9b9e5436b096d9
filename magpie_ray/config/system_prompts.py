"""System prompts: the shapes in which a user may write them, resolved to one tuple of weighted texts.

Owns: the shapes of the key `system_prompt` and their meaning. Invariants: a resolved prompt is never blank;
the weights of a build's prompts are positive and sum to one.
"""

import math
from collections.abc import Iterator
from typing import TypeAlias

from magpie_ray.config.fields import MAX_WEIGHT, MIN_WEIGHT, WEIGHT_PHRASE, as_number, is_text
from magpie_ray.config.problems import BadValueError, Problem
from magpie_ray.types import SystemPrompt

SystemPromptValue: TypeAlias = str | list[str] | dict[str, str] | dict[str, list[str | float]] | None

# arXiv 2406.08464: this prompt makes a model continue a conversation in later turns.
MULTI_TURN_PROMPT = (
    "You are a helpful AI assistant. The user will engage in a multi-round conversation with you, asking "
    "initial questions and following up with additional related questions. Your goal is to provide thorough, "
    "relevant and insightful responses to help the user with their queries."
)

_SHAPES = "text, a list of texts, a mapping of keys to texts, or a mapping of keys to [text, weight]"
_TEXT = "must be text that is not blank, in quotes where YAML reads it as something else"
_PAIR = "must be [text, weight], such as [You are a math tutor., 0.3]"


def check_system_prompt(value: object) -> SystemPromptValue:
    """A copy of the value in the user's shape, with all weights as floats.

    Raises:
        BadValueError: with every problem found in it.
    """
    if problems := list(_problems(value)):
        raise BadValueError(*problems)
    if isinstance(value, dict):
        return {
            key: [entry[0], as_number(entry[1])] if isinstance(entry, list) else entry
            for key, entry in value.items()
        }
    return list(value) if isinstance(value, list) else value  # type: ignore[return-value]  # see _problems


def resolve_prompts(value: SystemPromptValue, *, multi_turn: bool) -> tuple[SystemPrompt, ...]:
    """The prompts that rows choose from, in the user's order; () when rows have none."""
    if value is None:
        value = MULTI_TURN_PROMPT if multi_turn else ""
    if isinstance(value, dict):
        entries: list[tuple[str | None, str, float]]
        entries = [(key, *_text_and_weight(entry)) for key, entry in value.items()]
    else:
        texts = [value] if isinstance(value, str) else value
        entries = [(None, text, 1.0) for text in texts if text]
    total = math.fsum(weight for _, _, weight in entries)
    return tuple(SystemPrompt(key=key, text=text, weight=weight / total) for key, text, weight in entries)


def _text_and_weight(entry: str | list[str | float]) -> tuple[str, float]:
    return (entry, 1.0) if isinstance(entry, str) else (str(entry[0]), float(entry[1]))


def _problems(value: object) -> Iterator[Problem]:
    if value is None or value == "":
        return
    if isinstance(value, str):
        if not is_text(value):
            yield Problem(value=value, must=f'{_TEXT}, or "" for no system prompt at all')
    elif value in ([], {}):
        yield Problem(value=value, must='must not be empty; write "" for no system prompt at all')
    elif isinstance(value, list):
        yield from _list_problems(value)
    elif isinstance(value, dict):
        yield from _mapping_problems(value)
    else:
        yield Problem(value=value, must=f"must be {_SHAPES}")


def _list_problems(value: list[object]) -> Iterator[Problem]:
    if len(value) == 2 and is_text(value[0]) and as_number(value[1]) is not None:
        yield Problem(value=value, must="must have a key where it has a weight: {key: [text, weight]}")
    else:
        for index, text in enumerate(value):
            if not is_text(text):
                yield Problem(at=(str(index),), value=text, must=_TEXT)


def _mapping_problems(value: dict[object, object]) -> Iterator[Problem]:
    weighted = any(isinstance(entry, list) for entry in value.values())
    for key, entry in value.items():
        at = (str(key),)
        if not is_text(key):
            yield Problem(value=key, must="must have keys that are text; put this key in quotes")
        elif isinstance(entry, list):
            if len(entry) != 2:
                yield Problem(at=at, value=entry, must=_PAIR)
                continue
            if not is_text(entry[0]):
                yield Problem(at=(*at, "0"), value=entry[0], must=_TEXT)
            weight = as_number(entry[1])
            if weight is None or not MIN_WEIGHT <= weight <= MAX_WEIGHT:
                yield Problem(at=(*at, "1"), value=entry[1], must=f"must be {WEIGHT_PHRASE}")
        elif not is_text(entry):
            yield Problem(at=at, value=entry, must=f"{_TEXT}, or [text, weight]")
        elif weighted:
            # A silent weight of 1 among shares that sum to one would drown them.
            yield Problem(at=at, value=entry, must=f"{_PAIR}, as other keys have a weight")
