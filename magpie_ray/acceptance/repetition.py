"""Messages that end in a loop."""

import math
import zlib

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RepetitionRule

# A model that is caught in a loop does not leave it, so only the end of a message is examined. Its last
# characters are searched for in the text before them.
_KEY_CHARACTERS = 24
# The bytes at the end whose compressed size is measured. Fewer than the least say too little.
_END_BYTES, _LEAST_BYTES = 640, 320
# Compression is slow, so a few pieces of the end are searched for first: in a loop, one of them occurs again.
# Their distances are uneven, because lines with numbers may have equal lengths.
_PIECES, _PIECE_BYTES = 5, 8


def make_rule(thresholds: RepetitionRule, _: RuleContext) -> Rule:
    """A message whose end repeats itself: word for word, or with small changes.

    thresholds: min_characters and min_repeats are of the verbatim loop. max_ratio is the compressed size of
    the last 640 bytes over their size; below it, they repeat themselves with small changes.
    """
    min_characters, min_repeats = thresholds.min_characters, thresholds.min_repeats

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text.strip()
        if len(text) < min_characters:
            return None
        period = _period(text)
        if period and _is_periodic(text, period, max(min_characters, min_repeats * period)):
            return "repetition"
        end = text[-_END_BYTES:].encode("utf-8", "surrogatepass")[-_END_BYTES:]
        if len(end) < _LEAST_BYTES or not _repeats_a_piece(end):
            return None
        # The first occurrence of a phrase does not compress. In a shorter end it is a larger part.
        bound = thresholds.max_ratio * math.sqrt(_END_BYTES * len(end))
        return "repetition" if len(zlib.compress(end, 1)) < bound else None

    return rule


def _repeats_a_piece(end: bytes) -> bool:
    """Whether any of the pieces occurs more than once."""
    starts = (piece * (len(end) // _PIECES) + 3 * piece**2 for piece in range(_PIECES))
    return any(end.count(end[start : start + _PIECE_BYTES]) > 1 for start in starts)


def _period(text: str) -> int:
    """Characters from the last characters back to their previous occurrence; 0 where there is none."""
    previous = text.rfind(text[-_KEY_CHARACTERS:], 0, -1)
    return len(text) - _KEY_CHARACTERS - previous if previous >= 0 else 0


def _is_periodic(text: str, period: int, length: int) -> bool:
    """Whether the last `length` characters repeat every `period` characters."""
    return length <= len(text) and text[-length:-period] == text[-length + period :]


REMEDIES = {
    "repetition": "raise sampling.{role}.temperature, or set sampling.{role}.repetition_penalty to 1.05; "
    "where repetition is meant, loosen acceptance.rules.repetition"
}
