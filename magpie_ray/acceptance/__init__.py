"""Which generated messages count, and the reason when one does not.

Rules are small functions (message, conversation) -> reason or None, tried in order; the first reason found
rejects the attempt. What always holds: the verdict depends on what a rule is given and the config alone,
never on where it was made.
"""

from magpie_ray.acceptance.catalogue import build_rules, check_rules
from magpie_ray.acceptance.length import CONTEXT_FULL, UNFINISHED_REASONING
from magpie_ray.acceptance.remedies import remedy
from magpie_ray.acceptance.rule import Dialogue, Rule, Utterance, reason_to_reject

__all__ = [
    "CONTEXT_FULL",
    "UNFINISHED_REASONING",
    "Dialogue",
    "Rule",
    "Utterance",
    "build_rules",
    "check_rules",
    "reason_to_reject",
    "remedy",
]
