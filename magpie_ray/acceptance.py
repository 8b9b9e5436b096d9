"""Which generated messages count, and the reason when one does not.

Rules are small functions of one message, tried in order; the first reason found rejects the attempt.
What always holds: the verdict depends on the message and the config alone, never on where it was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from magpie_ray.types import FinishReason, Role

CONTEXT_FULL = "context_full"


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A generated message under judgement.

    text: decoded with special tokens kept visible. filled_context: it was cut where the model's context ends.
    """

    role: Role
    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    filled_context: bool = False


Rule = Callable[[Utterance], str | None]


def empty(utterance: Utterance) -> str | None:
    """Nothing but white space."""
    return None if utterance.text.strip() else "empty"


def truncated(roles: frozenset[Role]) -> Rule:
    """Cut by max_tokens or by the model's context, for the roles in which that is not wanted."""

    def rule(utterance: Utterance) -> str | None:
        if utterance.finish_reason != "length" or utterance.role not in roles:
            return None
        return CONTEXT_FULL if utterance.filled_context else "truncated"

    return rule


def role_marker(markers: Sequence[str], special_token_ids: frozenset[int]) -> Rule:
    """A piece of the chat template inside the message: the model went on into another turn."""

    def rule(utterance: Utterance) -> str | None:
        if not special_token_ids.isdisjoint(utterance.token_ids):
            return "role_marker"
        return "role_marker" if any(marker in utterance.text for marker in markers) else None

    return rule


def rules(
    *, markers: Sequence[str], special_token_ids: frozenset[int], truncated_roles: frozenset[Role]
) -> tuple[Rule, ...]:
    """The rules of a build, in the order in which they are tried."""
    return (empty, truncated(truncated_roles), role_marker(markers, special_token_ids))


def reason_to_reject(utterance: Utterance, rules: Sequence[Rule]) -> str | None:
    """The first reason any rule finds, or None when the message is accepted."""
    return next((reason for rule in rules if (reason := rule(utterance)) is not None), None)


def remedy(reason: str, role: Role) -> str:
    """What to try when messages of the role are rejected for the reason again and again."""
    return _REMEDIES.get(reason, _NO_REMEDY).format(role=role)


_REMEDIES = {
    "empty": "the model ends the turn at once: check the chat format with `magpie-ray template`, "
    "raise sampling.{role}.temperature, or set a system_prompt",
    "truncated": "raise sampling.{role}.max_tokens; a model that never ends its turns is usually a base "
    "model: use the instruct or chat version, and check the stop ids with `magpie-ray template`",
    "role_marker": "the model runs on into another turn: check the stop ids with `magpie-ray template`, "
    "or lower sampling.{role}.temperature",
    CONTEXT_FULL: "the conversation outgrows the model's context: raise engine.max_model_len, lower n_turns "
    "or max_tokens, or set acceptance.context_full: stop, so that such rows end with the turns they have",
}
_NO_REMEDY = "look at the example, and loosen the rule or change the prompts"
