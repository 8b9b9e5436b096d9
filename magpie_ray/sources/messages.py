"""What the values of a row say: its messages, its system prompt, its answers. Pure.

Invariants: messages alternate, beginning with the user's; a system message stands before them and is split
off. What does not fit is refused with a reason and a remedy, never mended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from magpie_ray.sources.shapes import ANSWERS, INPUT, RESPONSES, SYSTEM_PROMPT, Shape, is_list_of_texts
from magpie_ray.types import Role
from magpie_ray.utils.text import shortened

# What data sets call the roles.
_ROLES: Mapping[object, Role | str] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "developer": "system",
}
_LEAVE_OUT = "leave such rows out of the source"

Messages = tuple[tuple[Role, str], ...]


class WrongRowError(ValueError):
    """Why a row can't be used, without its place, which the caller knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowContent:
    """A row's messages; the text of its system prompt, None for none; several answers to the last message."""

    messages: Messages
    system_prompt: str | None
    responses: tuple[str | None, ...] = ()


def content_of(values: Mapping[str, object], shape: Shape, *, strict: bool = True) -> RowContent:
    """The content of a row. values: by column, those of `shape.columns` that the source has.

    Lists of messages are lists of (role, content), of objects with such fields, or JSON. strict: refuse also
    what only files of others have: a user's message without a character that shows.
    WrongRowError says what is wrong.
    """
    beside = _text(SYSTEM_PROMPT, values.get(SYSTEM_PROMPT))
    if shape.column == "instruction":
        messages, prompt = _single(values), None
    else:
        messages, prompt = _listed(shape.column, values.get(shape.column))
    if strict:
        _check_strictly(messages, (prompt, beside))
    # No system prompt and one without a character that shows are the same.
    prompt = next((text for text in (prompt, beside) if text and text.strip()), None)
    responses = values.get(RESPONSES) if shape.responses else None
    if responses is not None and not is_list_of_texts(responses):
        raise WrongRowError(f"{RESPONSES} is {_shown(responses)}, must be a list of texts")
    return RowContent(messages=messages, system_prompt=prompt, responses=tuple(responses or ()))  # type: ignore[arg-type]


def _single(values: Mapping[str, object]) -> Messages:
    instruction = _text("instruction", values.get("instruction"))
    if instruction is None:
        raise WrongRowError(f"instruction is null: there is no user message; {_LEAVE_OUT}")
    more = _text(INPUT, values.get(INPUT))
    text = f"{instruction}\n\n{more}" if more and more.strip() else instruction
    answers = [_text(name, values.get(name)) for name in ANSWERS]
    answer = next((one for one in answers if one is not None), None)
    return (("user", text),) if answer is None else (("user", text), ("assistant", answer))


def _listed(column: str, value: object) -> tuple[Messages, str | None]:
    """The messages, and the text of a system message before them."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise WrongRowError(f"{column} is text that is no JSON list of messages ({exc})") from exc
    if value is None or value == []:
        raise WrongRowError(f"{column} has no messages; {_LEAVE_OUT}")
    if not isinstance(value, list):
        raise WrongRowError(f"{column} is {_shown(value)}, must be a list of messages")
    prompt, messages = None, list[tuple[Role, str]]()
    for number, one in enumerate(value, 1):
        where = f"{column}, message {number}"
        role, text = _message(where, one)
        if role == "system":
            if number > 1:
                raise WrongRowError(
                    f"{where} is a system message, which stands before all others: move it, or {_LEAVE_OUT}"
                )
            prompt = text
        elif role == ("assistant" if len(messages) % 2 else "user"):
            messages.append((cast(Role, role), text))
        else:
            expected = "the assistant's" if len(messages) % 2 else "the user's"
            raise WrongRowError(
                f"{where} is of the {role}, must be {expected}: messages alternate, beginning with the "
                f"user's; join neighbours, or {_LEAVE_OUT}"
            )
    if not messages:
        raise WrongRowError(f"{column} has a system message alone, and no user message; {_LEAVE_OUT}")
    return tuple(messages), prompt


def _message(where: str, one: object) -> tuple[Role | str, str]:
    if isinstance(one, tuple):
        name, content = one
    elif isinstance(one, Mapping):
        name, content = one.get("role", one.get("from")), one.get("content", one.get("value"))
    else:
        raise WrongRowError(f"{where} is {_shown(one)}, must be an object with role and content")
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise WrongRowError(
            f"{where} has the role {_shown(name)}, must be user, assistant or system (or human, gpt): rename "
            f"the role, or {_LEAVE_OUT}"
        )
    return role, _content(where, content)


def _content(where: str, content: object) -> str:
    """The text of a message, that of OpenAI's parts joined by line ends."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise WrongRowError(f"{where}: the content is {_shown(content)}, must be text; {_LEAVE_OUT}")
    return "\n".join(_part(where, part) for part in content)


def _part(where: str, part: object) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in ("text", None) and isinstance(text := part.get("text"), str):
        return text
    shown = f"a part of type {kind}" if kind not in ("text", None) else f"the part {_shown(part)}"
    raise WrongRowError(f"{where} has {shown}, and only texts can be used; {_LEAVE_OUT}")


def _text(column: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise WrongRowError(f"{column} is {_shown(value)}, must be text or null")


def _check_strictly(messages: Messages, prompts: Sequence[str | None]) -> None:
    for number, (role, text) in enumerate(messages, 1):
        if role == "user" and not text.strip():
            raise WrongRowError(f"message {number}, which is the user's, is empty; {_LEAVE_OUT}")
    for one in (*(text for _, text in messages), *prompts):
        try:
            (one or "").encode()
        except UnicodeEncodeError as exc:
            raise WrongRowError(f"a text holds half of a surrogate pair, which is no text: {exc}") from exc


def _shown(value: object) -> str:
    return shortened(repr(value), 80)
