"""Messages that decline to help."""

from magpie_ray.acceptance.assistant_phrases import BEGINNING, asks, expression, plain
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import RefusalRule


def make_rule(thresholds: RefusalRule, _: RuleContext) -> Rule:
    """A refusal of the user; with `thresholds.assistant`, also one of the assistant."""
    refusals, alternatives = expression("refusals"), expression("alternatives")

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.role == "assistant" and not thresholds.assistant:
            return None
        if not refusals.match(plain(utterance.text.lstrip()[:BEGINNING])):
            return None
        # "I can't write to the card. What is wrong?" asks for help.
        asks_for_help = utterance.role == "user" and asks(utterance.text)
        return None if asks_for_help and not alternatives.search(utterance.text) else "refusal"

    return rule


REMEDIES = {
    "refusal": "set another system_prompt, or lower sampling.{role}.temperature; where refusals are "
    "wanted, set acceptance.rules.refusal: false"
}
