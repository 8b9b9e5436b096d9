"""Messages that end too early: before anything is said, or in the middle."""

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance
from magpie_ray.types import Role

CONTEXT_FULL = "context_full"
UNFINISHED_REASONING = "unfinished_reasoning"

# Zero-width and directional marks, which `str.strip` does not take for white space.
_INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"


def empty(utterance: Utterance, _: Dialogue) -> str | None:
    """Nothing that could be seen."""
    text = utterance.text.strip()
    # A visible character near the beginning is the rule: most texts are not copied.
    if text and text[0] not in _INVISIBLE:
        return None
    return None if text.translate(dict.fromkeys(map(ord, _INVISIBLE))).strip() else "empty"


def truncated(roles: frozenset[Role]) -> Rule:
    """Cut by max_tokens or by the model's context, for the roles in which that is not wanted."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.finish_reason != "length" or utterance.role not in roles:
            return None
        return CONTEXT_FULL if utterance.filled_context else "truncated"

    return rule


def length(
    *, min_user: int | None, max_user: int | None, min_assistant: int | None, max_assistant: int | None
) -> Rule:
    """Fewer or more characters than wanted, each role by its own bounds."""
    bounds: dict[Role, tuple[int, float]] = {
        "user": (min_user or 0, max_user or float("inf")),
        "assistant": (min_assistant or 0, max_assistant or float("inf")),
    }

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        low, high = bounds[utterance.role]
        characters = len(utterance.text.strip())
        if characters < low:
            return "too_short"
        return "too_long" if characters > high else None

    return rule
