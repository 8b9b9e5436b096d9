"""Which generated messages count, and the reason when one does not.

A rule is a small function of a message and the conversation before it. Rules are tried in order; the first
reason given rejects the attempt. Read `rule`, then any rule (a file is named as its key under
`acceptance.rules`, makes the rule, and lists a remedy for each reason), then `catalogue`, which builds the
rules of a build. `custom` wraps the user's own functions.

Invariants: whether a message is accepted depends on the message, its conversation and the config alone, never
on where or when it was generated.
"""

from magpie_ray.acceptance.catalogue import build_rules, remedy
from magpie_ray.acceptance.not_text import NOT_TEXT
from magpie_ray.acceptance.rule import Dialogue, Rule, RuleContext, Utterance, reason_to_reject
from magpie_ray.acceptance.truncated import CONTEXT_FULL, NO_TEXT, UNFINISHED_REASONING

__all__ = [
    "CONTEXT_FULL",
    "NOT_TEXT",
    "NO_TEXT",
    "UNFINISHED_REASONING",
    "Dialogue",
    "Rule",
    "RuleContext",
    "Utterance",
    "build_rules",
    "reason_to_reject",
    "remedy",
]
