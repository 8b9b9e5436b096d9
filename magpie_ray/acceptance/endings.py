"""Messages that end too early: before anything is said, or in the middle."""

from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance
from magpie_ray.types import Role

CONTEXT_FULL = "context_full"
UNFINISHED_REASONING = "unfinished_reasoning"


def empty(utterance: Utterance, _: Dialogue) -> str | None:
    """Nothing but white space."""
    return None if utterance.text.strip() else "empty"


def truncated(roles: frozenset[Role]) -> Rule:
    """Cut by max_tokens or by the model's context, for the roles in which that is not wanted."""

    def rule(utterance: Utterance, _: Dialogue) -> str | None:
        if utterance.finish_reason != "length" or utterance.role not in roles:
            return None
        return CONTEXT_FULL if utterance.filled_context else "truncated"

    return rule
