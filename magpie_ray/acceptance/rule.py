"""What a rule is: a function of a message and the conversation before it, to the reason that rejects it.

Invariants: a rule's result depends on these two and the config alone, never on where or when it runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from magpie_ray.types import FinishReason, Message, Role, SystemPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Utterance:
    """A generated message, to be accepted or rejected.

    text: decoded with special tokens kept visible, without the reasoning before it. filled_context: the
    message was cut because the model's context was full.
    """

    role: Role
    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    filled_context: bool = False
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue(Sequence[Message]):
    """The conversation before the message: accepted messages, the user's first, and the system prompt.

    A sequence of the messages: `len(conversation)`, `conversation[-1].text`, `for message in conversation`.
    """

    messages: tuple[Message, ...] = ()
    system_prompt: SystemPrompt | None = None

    def __len__(self) -> int:
        return len(self.messages)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        return self.messages[index]


Rule = Callable[[Utterance, Dialogue], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleContext:
    """What a rule may depend on beside its own thresholds.

    markers, special_token_ids, role_words: of the chat format; role_words are its names for the assistant.
    rejects_cut_answers: acceptance.truncated_response is reject.
    """

    markers: Sequence[str] = ()
    special_token_ids: frozenset[int] = frozenset()
    role_words: Sequence[str] = ()
    rejects_cut_answers: bool = False


def reason_to_reject(utterance: Utterance, dialogue: Dialogue, rules: Sequence[Rule]) -> str | None:
    """The first reason that any rule gives, or None when the message is accepted."""
    return next((reason for rule in rules if (reason := rule(utterance, dialogue)) is not None), None)
