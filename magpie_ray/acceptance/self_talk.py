"""User messages in the assistant's voice: they offer help, or introduce what was asked for."""

from magpie_ray.acceptance.assistant_phrases import BEGINNING, asks, expression, plain
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance

# Characters at the end of a message that may say whose voice it is.
_END = 160


def make_rule(_on: bool, _: RuleContext) -> Rule:
    """A user message that serves somebody: "Sure! Here is", "How can I help you today?", "As an AI, I"."""
    offers, replies, closings = expression("offers"), expression("replies"), expression("closings")

    def rule(utterance: Utterance, dialogue: Dialogue) -> str | None:
        if utterance.role != "user":
            return None
        text = utterance.text.strip()
        beginning = plain(text[:BEGINNING])
        if offers.match(beginning) or closings.search(plain(text[-_END:])):
            return "self_talk"
        if not replies.match(beginning):
            return None
        # A user may well reply "Sure, here are" to a question of the assistant.
        is_reply = dialogue.messages and asks(dialogue.messages[-1].text)
        return None if is_reply else "self_talk"

    return rule


REMEDIES = {
    "self_talk": "the model takes the user's turn for its own: check with `magpie-ray template` what "
    "stands before it, and set a system_prompt that describes the user"
}
