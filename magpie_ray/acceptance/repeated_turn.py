"""User turns that say again what was said before."""

import re

from rapidfuzz import fuzz

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# A Chinese or Japanese character counts as a word: nothing stands between words there.
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W_]+")
_FROM_EAST = "\u2e80"
# What is compared of a message: its beginning. A glance takes in less of it.
_COMPARED, _GLANCED = 600, 160
_ALIKE_AT_A_GLANCE = 65


def repeated_turn(*, similarity: float, min_characters: int) -> Rule:
    """A later user message that is equal, or nearly, to an earlier message of either role.

    Case, punctuation and white space do not count. similarity: 1 for equal ones alone. min_characters: of
    letters and digits; shorter ones ("Yes", "Continue") may come again.
    """

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        if utterance.role != "user" or not dialogue.messages:
            return None
        text = utterance.text[:_COMPARED].strip().casefold()
        beginning = text[:_GLANCED]
        words: list[str] | None = None
        for message in dialogue.messages:
            earlier = message.text[:_COMPARED].strip().casefold()
            # A glance: most messages have nothing to do with each other.
            if not fuzz.ratio(beginning, earlier[:_GLANCED], score_cutoff=_ALIKE_AT_A_GLANCE):
                continue
            if words is None:
                words = _words(text)
                size = sum(map(len, words))
                if size < min_characters and not (size >= min_characters / 2 and words[0] >= _FROM_EAST):
                    return None
            if _are_alike(words, _words(earlier), similarity):
                return "repeated_turn"
        return None

    return rule


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace("'", "").replace("’", ""))


def _are_alike(words: list[str], others: list[str], similarity: float) -> bool:
    """Nearly the same words in nearly the same order, with none in place of another one.

    "What is the capital of Spain?" is another question than the same of France, however similar.
    """
    if words == others:
        return True
    joined, other = " ".join(words), " ".join(others)
    if similarity == 1 or not fuzz.ratio(joined, other, score_cutoff=100 * similarity):
        return False
    here, there = set(words), set(others)
    added, dropped = "".join(sorted(here - there)), "".join(sorted(there - here))
    return not (added and dropped) or fuzz.ratio(added, dropped) >= 70
