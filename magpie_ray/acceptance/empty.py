"""Messages that say nothing: nothing visible, or marks alone."""

import re
import unicodedata

from magpie_ray.acceptance.assistant_phrases import phrases
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
# What also says something, if it is not ASCII: emoji, currencies, mathematical signs. Boxes are only drawn.
_SYMBOLS = ("So", "Sc", "Sm")
_BOXES = range(0x2500, 0x25A0)
# Characters of which one is in most operators; at most so many are in an operator with marks, and in a label.
_SIGNS, _LONGEST_SIGN = frozenset("+%&$@^/<\\="), 6
_LONGEST_LABEL = 40
# A code block without code, with the name of its language.
_BARE_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*[\w+#.-]*\s*(?:\n\s*\1)?")


def make_rule(_on: bool, _: RuleContext) -> Rule:
    """Nothing to read: white space, invisible marks, punctuation, lines and fences of Markdown alone.

    Of the user also a label with nothing behind it: "### Instruction:".
    """
    names = "|".join(phrases("bare_labels"))
    label = re.compile(rf"[#*_>\s]+(?:{names})[ \d]*[*_:：\s]*|(?:{names})[ \d]*[:：]", re.IGNORECASE)

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        text = utterance.text
        # Most texts have a letter at once.
        if not _LETTER_OR_DIGIT.search(text):
            return None if any(map(_is_symbol, text)) or _is_drawn(text) or _is_sign(utterance) else "empty"
        text = text.strip()
        if text.startswith(("```", "~~~")) and _BARE_FENCE.fullmatch(text):
            return "empty"
        is_bare = utterance.role == "user" and len(text) <= _LONGEST_LABEL and label.fullmatch(text)
        return "empty" if is_bare else None

    return rule


def _is_sign(utterance: Utterance) -> bool:
    """Whether an answer is a sign such as "+" or "!=", which a user may have asked for."""
    text = utterance.text.strip()
    return utterance.role == "assistant" and len(text) <= _LONGEST_SIGN and not _SIGNS.isdisjoint(text)


def _is_drawn(text: str) -> bool:
    """Whether marks may be a picture: of at least three different lines."""
    return len({line for line in text.splitlines() if line.strip()}) > 2


def _is_symbol(character: str) -> bool:
    is_one = not character.isascii() and unicodedata.category(character) in _SYMBOLS
    return is_one and ord(character) not in _BOXES


REMEDIES = {
    "empty": "the model ends the turn at once: check the chat format with `magpie-ray template`, "
    "raise sampling.{role}.temperature, or set a system_prompt"
}
