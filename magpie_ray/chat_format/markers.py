"""What ends a message, and what gives a leaked marker away, read off the texts around messages.

Owns: the choice of stops and markers. What always holds: a token ends a message wherever the template has
one; a text does only where plain markup comes first, or nothing but plain markup.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from magpie_ray.chat_format.template import Turns


class End(NamedTuple):
    """What ends a message: the next marking token (None: there is none), the plain markup before it ("")."""

    token_id: int | None
    text: str
    blank_before: bool  # white space stands between the message and the token


def end_of_message(text: str, ids: Sequence[int], markers: Mapping[int, str]) -> End:
    """The end of a message that `text` (as ids: `ids`) follows; `markers`: id -> text of marking tokens."""
    token_id = next((token_id for token_id in ids if token_id in markers), None)
    plain = text if token_id is None else text.partition(markers[token_id])[0]
    is_blank = not plain.strip()
    # Plain markup that a model writes out before the token would become part of the message: stop there too.
    return End(
        token_id, "" if is_blank else plain.rstrip(), is_blank and plain != "" and token_id is not None
    )


def role_markers(turns: Turns, tokens: Sequence[str]) -> list[str]:
    """Texts that no message contains unless a marker leaked; `tokens`: the marking tokens that are written.

    A role's name beside a token ("user" after "<|im_start|>") is a plain word and none of them.
    """
    between = [*_lines(turns.user_to_assistant, tokens), *_lines(turns.next_user, tokens)]
    # A word with a colon may stand inside a sentence: it marks a turn where it begins a line.
    plain = ["\n" + line if line[0].isalnum() else line for line in between if not line.isalnum()]
    head = turns.around_system[0] if turns.around_system else ""
    openers = [line for line in _lines(head, tokens) if not line[0].isalnum() and " " not in line]
    return [*tokens, *plain, *openers]


def _lines(text: str, tokens: Sequence[str]) -> list[str]:
    parts = re.split("|".join(map(re.escape, tokens)), text) if tokens else [text]
    return [line.strip() for part in parts for line in part.splitlines() if line.strip()]
