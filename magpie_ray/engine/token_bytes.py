"""The UTF-8 bytes of each token of a vocabulary.

Owns the spellings that vocabularies use for their tokens. Invariants: a spelling is chosen because it gives
sample texts back, not by a tokenizer's name or type; a tokenizer that no spelling explains is refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.errors import FormatError

_PLAIN_SAMPLE = '# What is (x + 1) * 2?\n\n1. **One**: "so" it\'s 7.\n- a_b\t`c`'
_OTHER_SAMPLES = ("Ça va bien, où ?", "你好。世界", "«Привет»", "¿Qué?", "🙂 ok")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

Pieces = list[bytes | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenBytes:
    """The vocabulary of a model.

    pieces: bytes by token id, None for special tokens and unused ids. is_exact: whether the bytes of parts of
    characters are known too, which some tokenizers hide.
    """

    pieces: Pieces
    is_exact: bool

    def resized(self, size: int) -> "TokenBytes":
        """The vocabulary of a model with `size` token ids, of which the tokenizer may know more or fewer."""
        unknown: Pieces = [None] * (size - len(self.pieces))
        return replace(self, pieces=[*self.pieces[:size], *unknown])


def token_bytes(tokenizer: Any) -> TokenBytes:
    """The bytes of a Hugging Face tokenizer's tokens.

    FormatError when no spelling gives back the text that was tokenized.
    """
    encoder, size = Encoder(tokenizer), len(tokenizer)
    special = frozenset(encoder.special_ids)
    added = getattr(tokenizer, "added_tokens_decoder", {})
    known = {token_id: str(token).encode() for token_id, token in added.items()} | dict.fromkeys(special)
    for pieces in _spellings(tokenizer, size):
        for token_id, piece in known.items():
            if token_id < size:
                pieces[token_id] = piece
        if _gives_back(_PLAIN_SAMPLE, encoder, pieces, special):
            exact = all(_gives_back(sample, encoder, pieces, special) for sample in _OTHER_SAMPLES)
            return TokenBytes(pieces=pieces, is_exact=exact)
    raise FormatError(
        "sampling.*.first_tokens: the text of each token of this model's tokenizer can't be told, so "
        "beginnings of messages can't be banned or penalised: leave first_tokens out, or use another model"
    )


def _gives_back(sample: str, encoder: Encoder, pieces: Pieces, special: frozenset[int]) -> bool:
    """Whether the pieces of the sample's tokens make the sample; a special token stands for unknown text."""
    parts = []
    for token_id in encoder.alone(sample):
        piece = pieces[token_id]
        if piece is None and token_id not in special:
            return False
        parts.append(b".*" if piece is None else re.escape(piece))
    # Some tokenizers put a space in front.
    pattern = b" ?" + b"".join(parts).removeprefix(re.escape(b" "))
    return re.fullmatch(pattern, sample.encode(), re.DOTALL) is not None


def _spellings(tokenizer: Any, size: int) -> Iterator[Pieces]:
    tokens = tokenizer.convert_ids_to_tokens(list(range(size)))
    for spell in (_byte_level, _sentencepiece):
        yield [spell(token) if isinstance(token, str) else None for token in tokens]
    yield _by_decoding(tokenizer, size)


def _byte_level(token: str) -> bytes | None:
    """GPT-2's spelling: a printable character for every byte."""
    try:
        return token.translate(_bytes_of_characters()).encode("latin-1")
    except UnicodeEncodeError:
        return None


@cache
def _bytes_of_characters() -> dict[int, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    # A character that stands for no byte becomes one that latin-1 can't hold.
    nothing = dict.fromkeys(others, ord("▁"))
    return nothing | {byte: byte for byte in printable} | {0x100 + at: b for at, b in enumerate(others)}


def _sentencepiece(token: str) -> bytes | None:
    """SentencePiece's spelling: ▁ for a space, and tokens like <0x0A> for bytes."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()


def _by_decoding(tokenizer: Any, size: int) -> Pieces:
    """The text that a token adds to that of another token; bytes of no whole character show as unknown."""
    anchor = tokenizer("a", add_special_tokens=False)["input_ids"][-1:]
    before = tokenizer.decode(anchor)
    pieces: Pieces = []
    for token_id in range(size):
        text = tokenizer.decode([*anchor, token_id])
        pieces.append(text[len(before) :].encode() if text.startswith(before) else None)
    return pieces
