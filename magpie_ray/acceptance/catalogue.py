"""All rules: the built-in ones by config key, the user's own by import path.

Invariants: the order in which rules are tried is that of the keys in the config, then the user's own.
"""

from dataclasses import replace
from typing import Any, Protocol

from magpie_ray.acceptance import (
    empty,
    language,
    length,
    not_text,
    own_answer,
    refusal,
    repeated_turn,
    repetition,
    role_marker,
    self_talk,
    truncated,
)
from magpie_ray.acceptance.custom import custom_rule
from magpie_ray.acceptance.rule import Rule, RuleContext
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.types import Role


class _RuleModule(Protocol):
    """The module of a rule, named as its key under `acceptance.rules`.

    REMEDIES: for each reason that the rule gives, what the user can try; {role} stands for the role of the
    rejected message. make_rule: the rule from its config section (True for a rule without thresholds) and the
    context; may raise ConfigError.
    """

    REMEDIES: dict[str, str]

    def make_rule(self, section: Any, context: RuleContext, /) -> Rule: ...


_MODULES: dict[str, _RuleModule] = {
    "empty": empty,
    "truncated": truncated,
    "role_marker": role_marker,
    "not_text": not_text,
    "length": length,
    "repetition": repetition,
    "own_answer": own_answer,
    "self_talk": self_talk,
    "refusal": refusal,
    "repeated_turn": repeated_turn,
    "language": language,
}
_NO_FORMAT = RuleContext()
_REMEDIES = {reason: text for module in _MODULES.values() for reason, text in module.REMEDIES.items()}


def build_rules(config: AcceptanceConfig, context: RuleContext = _NO_FORMAT) -> dict[str, Rule]:
    """The rules that are on, by name, in the order in which they are tried.

    context: what the chat format adds. ConfigError when one of the user's own rules can't be imported, or the
    language detector is not installed.
    """
    context = replace(context, rejects_cut_answers=config.truncated_response == "reject")
    rules = {key: _MODULES[key].make_rule(section, context) for key, section in config.rules if section}
    return rules | {path: custom_rule(path, thresholds) for path, thresholds in config.custom_rules}


def remedy(reason: str, role: Role) -> str:
    """What the user can try when messages of the role are rejected for the reason again and again."""
    unknown = "look at the example, and loosen the rule or change the prompts"
    return _REMEDIES.get(reason, unknown).format(role=role)
