"""User turns in the assistant's voice: it offers help, introduces what it made, or refuses."""

import re

from magpie_ray.acceptance.assistant_phrases import OFFERS, REFUSALS, REPLIES
from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance

# A voice is told by how a message begins, and sometimes by how it ends: in so many characters.
_BEGINNING, _END = 300, 160
_CLOSING = re.compile(
    r"(?:^|[.!?] |\n)(?:is there anything else (?:that )?i can (?:help|assist|do for)"
    r"|i hope (?:this|that) helps[.!] (?:please )?(?:let me know|feel free))"
)
_ASKS = re.compile(r"[?？؟]")
_OFFERS_ELSE = re.compile(r"\b(?:else|instead|another|other|rather|i can help|help you)\b[^?]*\?")


def self_talk(utterance: Utterance, dialogue: Dialogue) -> str | None:
    """A user message that serves somebody: "Sure! Here is", "How can I help you today?", "As an AI, I"."""
    if utterance.role != "user":
        return None
    text = utterance.text.strip()
    beginning = _plain(text[:_BEGINNING])
    if OFFERS.match(beginning) or _CLOSING.search(_plain(text[-_END:])):
        return "self_talk"
    # To what the assistant asked, a user may well reply "Sure, here are".
    asked = bool(dialogue.messages) and bool(_ASKS.search(dialogue.messages[-1].text))
    return "self_talk" if not asked and REPLIES.match(beginning) else None


def refusal(*, assistant: bool) -> Rule:
    """A message that declines to help, from the user's turn and, if wanted, the assistant's."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.role == "assistant" and not assistant:
            return None
        if not REFUSALS.match(_plain(utterance.text.lstrip()[:_BEGINNING])):
            return None
        # "I can't write to the card. What is wrong?" asks for help and does not decline it.
        asks = (
            utterance.role == "user"
            and _ASKS.search(utterance.text)
            and not _OFFERS_ELSE.search(utterance.text)
        )
        return None if asks else "refusal"

    return rule


def _plain(text: str) -> str:
    """In lower case, with straight apostrophes."""
    return text.lower().replace("’", "'")
