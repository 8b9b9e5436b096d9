"""What a rule is: a function of a message and the conversation before it, to the reason that rejects it.

What always holds: the verdict depends on these two and the config alone, never on where or when it was made.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from magpie_ray.types import FinishReason, Message, Role, SystemPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A generated message under judgement.

    text: decoded with special tokens kept visible, without the reasoning that stood before it.
    filled_context: it was cut where the model's context ends.
    """

    role: Role
    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    filled_context: bool = False
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """The row before the message: its accepted messages, alternating from the user's, and its prompt."""

    messages: tuple[Message, ...] = ()
    system_prompt: SystemPrompt | None = None


Rule = Callable[[Utterance, Dialogue], str | None]


def reason_to_reject(utterance: Utterance, dialogue: Dialogue, rules: Sequence[Rule]) -> str | None:
    """The first reason any rule finds, or None when the message is accepted."""
    return next((reason for rule in rules if (reason := rule(utterance, dialogue)) is not None), None)
