"""What ends a message, and what a message must not contain, read off the texts around messages.

Owns: how the end of a message is read off the text after it; `derivation` and `thinking` assemble the stop
ids of a format from it. Invariant: the next marker token ends a message. A stop string is used only where
plain markup stands before that token, or where no token follows.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from magpie_ray.chat_format.template import Turns


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
    return End(
        token_id, "" if is_blank else plain.rstrip(), is_blank and plain != "" and token_id is not None
    )


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


def _lines(text: str, tokens: Sequence[str]) -> list[str]:
    parts = re.split("|".join(map(re.escape, tokens)), text) if tokens else [text]
    return [line.strip() for part in parts for line in part.splitlines() if line.strip()]
