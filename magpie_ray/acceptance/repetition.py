"""Messages that go round in circles."""

import math
import zlib

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# A loop is searched for at the end, which a model that is caught in one does not leave. So many characters
# say what is repeated there. How well an end compresses is told by so many bytes; there is less to go by in
# fewer.
_KEY = 24
_END_BYTES, _LEAST_BYTES = 640, 320
# Compressing is dear, so a few pieces of the end are looked at first: of a loop one comes again.
# They stand at uneven distances, as lines with numbers in them may be even.
_PIECES, _PIECE_BYTES = 5, 8


def repetition(*, min_characters: int, min_repeats: int, max_ratio: float) -> Rule:
    """The end says the same thing over and over.

    min_characters, min_repeats: of what is repeated word for word. max_ratio: of the compressed size of the
    last 640 bytes to their size; below it they repeat themselves with small changes.
    """

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text.strip()
        if len(text) < min_characters:
            return None
        period = _period(text)
        if period and _is_periodic(text, period, max(min_characters, min_repeats * period)):
            return "repetition"
        end = text[-_END_BYTES:].encode("utf-8", "surrogatepass")[-_END_BYTES:]
        if len(end) < _LEAST_BYTES or not _has_echoes(end):
            return None
        # What is said first is never compressed: the shorter the end, the more of it that is.
        bound = max_ratio * math.sqrt(_END_BYTES * len(end))
        return "repetition" if len(zlib.compress(end, 1)) < bound else None

    return rule


def _has_echoes(end: bytes) -> bool:
    """Whether any of the pieces comes again."""
    starts = (piece * (len(end) // _PIECES) + 3 * piece**2 for piece in range(_PIECES))
    return any(end.count(end[start : start + _PIECE_BYTES]) > 1 for start in starts)


def _period(text: str) -> int:
    """Characters from the end back to where the same end was written last; 0: nowhere."""
    found = text.rfind(text[-_KEY:], 0, -1)
    return len(text) - _KEY - found if found >= 0 else 0


def _is_periodic(text: str, period: int, length: int) -> bool:
    """Whether the last `length` characters repeat after each `period` of them."""
    return length <= len(text) and text[-length:-period] == text[-length + period :]
