"""Messages that repeat themselves: they end in a loop, or say much again."""

import math
import zlib

from magpie_ray.acceptance.repeated_passages import density, says_much_again
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RepetitionRule

# A loop at the end: the last characters are searched for in the text before them.
_KEY_CHARACTERS = 24
# The bytes at the end whose compressed size is measured. Fewer than the least say too little.
_END_BYTES, _LEAST_BYTES = 640, 320
# Compression is slow, so a few pieces of the end are searched for first: in a loop, one of them occurs often.
# Their distances are uneven, because lines with numbers may have equal lengths. Indentation does not count.
_PIECES, _PIECE_BYTES, _PIECE_TIMES, _PIECE_KINDS = 5, 8, 5, 3
# A cut message had no chance to leave its loop, or was on the way into one, so less is enough.
_CUT_CHARACTERS, _CUT_REPEATS, _CUT_SHARE = 0.5, 0.75, 0.75


def make_rule(thresholds: RepetitionRule, _: RuleContext) -> Rule:
    """A message that ends in a loop, word for word or with small changes, or that says much of it again.

    thresholds: min_characters and min_repeats are of the verbatim loop. max_ratio is the compressed size of
    the last 640 bytes over their size; below it, they repeat themselves with small changes. max_said_before
    is the share of the text that stood word for word earlier in it. Cut messages are measured more strictly.
    """
    whole, cut = thresholds, _for_cut_messages(thresholds)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text.strip()
        is_cut = utterance.finish_reason == "length"
        bounds = cut if is_cut else whole
        dense = density(text)
        min_characters = bounds.min_characters // dense
        if len(text) < min_characters:
            return None
        period = _period(text)
        if period and _is_periodic(text, period, max(min_characters, bounds.min_repeats * period)):
            return "repetition"
        if _ends_alike(text, bounds.max_ratio):
            return "repetition"
        is_answer, most = utterance.role == "assistant", bounds.max_said_before
        if says_much_again(text, most, dense, is_answer=is_answer, look_closely=is_cut):
            return "repetition"
        return None

    return rule


def _for_cut_messages(thresholds: RepetitionRule) -> RepetitionRule:
    return thresholds.model_copy(
        update={
            "min_characters": math.ceil(thresholds.min_characters * _CUT_CHARACTERS),
            "min_repeats": math.ceil(thresholds.min_repeats * _CUT_REPEATS),
            "max_said_before": thresholds.max_said_before * _CUT_SHARE,
        }
    )


def _period(text: str) -> int:
    """Characters from the last characters back to their previous occurrence; 0 where there is none."""
    previous = text.rfind(text[-_KEY_CHARACTERS:], 0, -1)
    return len(text) - _KEY_CHARACTERS - previous if previous >= 0 else 0


def _is_periodic(text: str, period: int, length: int) -> bool:
    """Whether the last `length` characters repeat every `period` characters."""
    return length <= len(text) and text[-length:-period] == text[-length + period :]


def _ends_alike(text: str, max_ratio: float) -> bool:
    """Whether the end compresses to less than that part of its size."""
    end = text[-_END_BYTES:].encode("utf-8", "surrogatepass")[-_END_BYTES:]
    if len(end) < _LEAST_BYTES or not _has_a_frequent_piece(end):
        return False
    # The first occurrence of a phrase does not compress. In a shorter end it is a larger part.
    return len(zlib.compress(end, 1)) < max_ratio * math.sqrt(_END_BYTES * len(end))


def _has_a_frequent_piece(end: bytes) -> bool:
    starts = (piece * (len(end) // _PIECES) + 3 * piece**2 for piece in range(_PIECES))
    pieces = (end[start : start + _PIECE_BYTES] for start in starts)
    return any(end.count(piece) >= _PIECE_TIMES and len(set(piece)) >= _PIECE_KINDS for piece in pieces)


REMEDIES = {
    "repetition": "raise sampling.{role}.temperature, or set sampling.{role}.repetition_penalty to 1.05; "
    "where repetition is meant, loosen acceptance.rules.repetition"
}
