"""What ends a message, and what a message must not contain, read off the texts around messages.

Owns: how the end of a message is read off the text after it; `derivation` and `thinking` assemble the stop
ids of a format from it. Invariant: the next marker token ends a message. A stop string is used only where
plain markup stands before that token, or where no token follows. It ends with the first mark in brackets,
because a model may write anything behind the mark.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from magpie_ray.chat_format.template import Turns

# A mark in brackets. Names of HTML tags are no marks: messages may contain them.
_BRACKETED = re.compile(r"<(?!/?(?:br|hr|p|b|i|div|span|li|ul|ol|h\d)\b)[^<>\n]*>|\[[^\[\]\n]*\]")


class End(NamedTuple):
    """What ends a message: the next marker token (or None), and the plain markup before it (or "")."""

    token_id: int | None
    text: str
    blank_before: bool  # white space stands between the message and the token


def end_of_message(text: str, ids: Sequence[int], markers: Mapping[int, str]) -> End:
    """What ends a message that `text` follows.

    ids: the ids of `text`. markers: id -> text of marker tokens.
    """
    token_id = next((token_id for token_id in ids if token_id in markers), None)
    plain = text if token_id is None else text.partition(markers[token_id])[0]
    is_blank = not plain.strip()
    # Generation also stops at plain markup before the token, which would become part of the message.
    mark = _BRACKETED.match(plain.lstrip())
    length = len(plain) - len(plain.lstrip()) + mark.end() if mark else len(plain.rstrip())
    return End(
        token_id, "" if is_blank else plain[:length], is_blank and plain != "" and token_id is not None
    )


def role_problem(
    generation: str, history: str, *, tokens: Sequence[str], reasoning: Sequence[str]
) -> str | None:
    """What is odd about the text that asks for an answer, beside the text before an answer of the history.

    reasoning: marks that may stand in either. None where one text continues the other.
    """
    for mark in reasoning:
        generation, history = generation.replace(mark, ""), history.replace(mark, "")
    shared = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(generation, history, strict=False))
    )
    asked, written = generation[shared:].strip(), history[shared:].strip()
    if asked:
        return f"it asks for an answer with {generation!r}, but writes {history!r} before one of the history"
    if written and _words(written, tokens) and not _words(generation, tokens):
        return f"it has no generation prompt, though it writes {history!r} before an answer of the history"
    return None


def role_markers(turns: Turns, tokens: Sequence[str]) -> list[str]:
    """Texts that a message contains only if a marker leaked. tokens: the marker tokens of the template.

    The name of a role beside a token ("user" after "<|im_start|>") is a plain word and no marker.
    """
    between = [*_lines(turns.user_to_assistant, tokens), *_lines(turns.next_user, tokens)]
    # A word with a colon may stand inside a sentence. It marks a turn only where it begins a line.
    plain = ["\n" + line if line[0].isalnum() else line for line in between if not line.isalnum()]
    head = turns.around_system[0] if turns.around_system else ""
    openers = [line for line in _lines(head, tokens) if not line[0].isalnum() and " " not in line]
    return [*tokens, *plain, *openers]


def _words(text: str, tokens: Sequence[str]) -> bool:
    """Whether a text has more than marks: the name of a role, for one."""
    plain = " ".join(_lines(text, tokens))
    return any(character.isalnum() for character in _BRACKETED.sub("", plain))


def _lines(text: str, tokens: Sequence[str]) -> list[str]:
    parts = re.split("|".join(map(re.escape, tokens)), text) if tokens else [text]
    return [line.strip() for part in parts for line in part.splitlines() if line.strip()]
