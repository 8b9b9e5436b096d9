"""Messages with fewer or more characters than wanted."""

from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance
from magpie_ray.config.acceptance import LengthRule
from magpie_ray.types import Role


def make_rule(thresholds: LengthRule, _: RuleContext) -> Rule:
    """A message outside the bounds of its role, in characters without the white space around it."""
    bounds: dict[Role, tuple[int, float]] = {
        "user": (thresholds.min_user or 0, thresholds.max_user or float("inf")),
        "assistant": (thresholds.min_assistant or 0, thresholds.max_assistant or float("inf")),
    }

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        low, high = bounds[utterance.role]
        characters = len(utterance.text.strip())
        if characters < low:
            return "too_short"
        return "too_long" if characters > high else None

    return rule


REMEDIES = {
    "too_short": "lower acceptance.rules.length.min_{role}, or ask for more in a system_prompt",
    "too_long": "raise acceptance.rules.length.max_{role}, or ask for less in a system_prompt",
}
