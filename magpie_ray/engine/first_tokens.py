"""Which tokens may come next at the beginning of a message.

Owns the way from the texts that no message may begin with to token ids. vLLM's bad_words can't express this:
they hold for a whole message, and for only one tokenization of a text. So each vocabulary and set of texts
gets a table, in which message_heads looks up the beginning of a message.

Invariants: no token completes a banned text, whatever the tokenization and the white space in front; tokens
that end a message are never banned; behind any other beginning nothing is banned.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from magpie_ray.config.sampling import FirstTokens
from magpie_ray.engine.token_bytes import TokenBytes
from magpie_ray.errors import ConfigError

START = b""

# White space as str.strip knows it: at most three bytes each.
_BLANKS = tuple(chr(code).encode() for code in range(0x3001) if chr(code).isspace())
_LEADING_BLANKS = re.compile(b"(?:" + b"|".join(map(re.escape, _BLANKS)) + b")*")


@dataclass(frozen=True, kw_only=True, slots=True)
class NextToken:
    """The rules for the token that follows one beginning.

    banned: token ids. penalties: id -> what is subtracted from its logit. leads: id -> the beginning that the
    token makes; after ids that are missing here no rule applies any more.
    """

    banned: tuple[int, ...]
    penalties: Mapping[int, float]
    leads: Mapping[int, bytes]


class FirstTokenTable:
    """All beginnings to which a rule applies, from START on: bytes of a message without leading blanks.

    ends: ids that end a message. ConfigError when the bans leave no token to begin with, or contain
    characters whose bytes the vocabulary does not show.
    """

    def __init__(self, rules: FirstTokens, vocabulary: TokenBytes, *, ends: Collection[int] = ()) -> None:
        self._bans = tuple(text.encode() for text in rules.ban)
        self._penalties = [(text.encode(), penalty) for text, penalty in rules.penalties.items()]
        texts = [*self._bans, *(text for text, _ in self._penalties)]
        if not vocabulary.is_exact and not all(text.isascii() for text in texts):
            raise ConfigError(
                "first_tokens: this model's tokenizer does not show the bytes of its tokens, so texts "
                f"must be ASCII, got {next(t.decode() for t in texts if not t.isascii())!r}"
            )
        self._by_first_byte = defaultdict[int, list[tuple[int, bytes]]](list)
        for token_id, piece in enumerate(vocabulary.pieces):
            if piece and token_id not in ends:
                self._by_first_byte[piece[0]].append((token_id, piece))
        texts_to_track = (*self._bans, *_BLANKS)
        self._beginnings = {text[:length] for text in texts_to_track for length in range(len(text))}
        self._states = {start: self._next_token(start, texts_to_track) for start in self._beginnings}
        if self._bans and not self._leaves_a_start():
            raise ConfigError(
                f"first_tokens.ban: {', '.join(map(repr, rules.ban))} leave no token that a message could "
                "begin with: ban fewer texts"
            )

    def __getitem__(self, beginning: bytes) -> NextToken:
        """The rules after a beginning, which is START or one that a token led to."""
        return self._states[beginning]

    def after(self, beginning: bytes, token_id: int) -> bytes | None:
        """The beginning after the token; None when no rule applies any more."""
        return self._states[beginning].leads.get(token_id)

    def _next_token(self, beginning: bytes, texts_to_track: tuple[bytes, ...]) -> NextToken:
        # Only at the start: a text of several tokens is penalised once.
        penalised = self._penalties if beginning == START else []
        texts = (*texts_to_track, *(text for text, _ in penalised))
        first = {t[len(beginning)] for t in texts if t.startswith(beginning) and len(t) > len(beginning)}
        banned, penalties, leads = list[int](), dict[int, float](), dict[int, bytes]()
        for token_id, piece in self._with_first_byte(first):
            text = _without_leading_blanks(beginning + piece)
            if self._bans and text.startswith(self._bans):
                banned.append(token_id)
                continue
            if text in self._beginnings:
                leads[token_id] = text
            matching = [p for t, p in penalised if text and (text.startswith(t) or t.startswith(text))]
            if matching:
                penalties[token_id] = sum(matching)
        return NextToken(banned=tuple(banned), penalties=penalties, leads=leads)

    def _with_first_byte(self, first: Iterable[int]) -> Iterable[tuple[int, bytes]]:
        return (token for byte in sorted(first) for token in self._by_first_byte.get(byte, ()))

    def _leaves_a_start(self) -> bool:
        banned = set(self._states[START].banned)
        return any(
            token_id not in banned and _is_text(piece)
            for tokens in self._by_first_byte.values()
            for token_id, piece in tokens
        )


def _is_text(piece: bytes) -> bool:
    """Whether a message could begin with the piece: not a part of a character, nor a control character."""
    text = piece.decode(errors="ignore").strip()
    return bool(text) and text.isprintable()


def _without_leading_blanks(text: bytes) -> bytes:
    blanks = _LEADING_BLANKS.match(text)
    return text[blanks.end() :] if blanks else text
