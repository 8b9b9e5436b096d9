"""Which generated messages count, and the reason when one does not.

Rules are small functions (message, conversation) -> reason or None, tried in order; the first reason found
rejects the attempt. What always holds: the verdict depends on what a rule is given and the config alone,
never on where it was made.
"""

from collections.abc import Sequence

from magpie_ray.acceptance.endings import CONTEXT_FULL, UNFINISHED_REASONING, empty, truncated
from magpie_ray.acceptance.markers import role_marker
from magpie_ray.acceptance.remedies import remedy
from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance, reason_to_reject
from magpie_ray.types import Role

__all__ = [
    "CONTEXT_FULL",
    "UNFINISHED_REASONING",
    "Dialogue",
    "Rule",
    "Utterance",
    "reason_to_reject",
    "remedy",
    "rules",
]


def rules(
    *, markers: Sequence[str], special_token_ids: frozenset[int], truncated_roles: frozenset[Role]
) -> tuple[Rule, ...]:
    """The rules of a build, in the order in which they are tried."""
    return (empty, truncated(truncated_roles), role_marker(markers, special_token_ids))
