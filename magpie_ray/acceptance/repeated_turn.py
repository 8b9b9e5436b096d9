"""User messages that repeat an earlier message, and answers that are the question again."""

import re

from rapidfuzz import fuzz

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RepeatedTurnRule

# A Chinese or Japanese character counts as a word: no space separates words there.
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af]|[^\W_]+")
_FROM_EAST = "\u2e80"
# Characters at the beginning of a message that are compared; and those of a quick comparison, which must be
# alike (0 to 100) for the thorough one.
_COMPARED, _QUICKLY_COMPARED = 600, 160
_MIN_QUICK_RATIO = 65
# Words of an answer that is no greeting.
_LEAST_ECHO = 4


def make_rule(thresholds: RepeatedTurnRule, _: RuleContext) -> Rule:
    """A later user message that is equal, or nearly equal, to an earlier message of either role.

    Also an answer that is equal to the message it answers, and longer than a greeting. Case, punctuation and
    white space do not count. thresholds: with similarity 1, only equal messages are rejected. A message with
    fewer letters and digits than min_characters ("Yes", "Continue") may come again.
    """
    similarity, min_characters = thresholds.similarity, thresholds.min_characters

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        if not dialogue.messages:
            return None
        if utterance.role == "assistant":
            return "repeated_turn" if _is_echo(utterance.text, dialogue.messages[-1].text) else None
        text = utterance.text[:_COMPARED].strip().casefold()
        beginning = text[:_QUICKLY_COMPARED]
        words: list[str] | None = None
        for message in dialogue.messages:
            earlier = message.text[:_COMPARED].strip().casefold()
            # Most messages have nothing in common.
            if not fuzz.ratio(beginning, earlier[:_QUICKLY_COMPARED], score_cutoff=_MIN_QUICK_RATIO):
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


def _is_echo(answer: str, question: str) -> bool:
    """Whether an answer has the words of the question and no others. "Good morning!" may answer itself."""
    # Most answers are longer.
    if abs(len(answer) - len(question)) > len(question) // 4:
        return False
    words = _words(answer.casefold())
    return len(words) >= _LEAST_ECHO and words == _words(question.casefold())


def _words(text: str) -> list[str]:
    return _WORD.findall(text.replace("'", "").replace("’", ""))


def _are_alike(words: list[str], others: list[str], similarity: float) -> bool:
    """Whether the words and their order are nearly the same, and no word takes the place of another one.

    "What is the capital of Spain?" and "What is the capital of France?" are different questions.
    """
    if words == others:
        return True
    joined, other = " ".join(words), " ".join(others)
    if similarity == 1 or not fuzz.ratio(joined, other, score_cutoff=100 * similarity):
        return False
    added = "".join(sorted(set(words) - set(others)))
    dropped = "".join(sorted(set(others) - set(words)))
    return not (added and dropped) or fuzz.ratio(added, dropped) >= 70


REMEDIES = {
    "repeated_turn": "set acceptance.retry_from: last_turn, so that only the turn is made again; or "
    "raise sampling.user.temperature, set a system_prompt that asks for follow-up questions, or lower "
    "n_turns"
}
