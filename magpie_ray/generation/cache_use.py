"""What the live conversations hold of an engine's KV cache, and which of them are about to lose it.

Bookkeeping in tokens and engine steps. What always holds: a conversation that is not alive holds nothing.
"""

from collections import deque

from magpie_ray.generation.conversation import Conversation


class CacheUse:
    """One engine's. What conversations share (`shared_tokens`) is held once for all, and not counted."""

    def __init__(self) -> None:
        self._known = 0
        self._asked: dict[Conversation, int] = {}  # -> the step in which the message was asked for
        self._asked_steps = 0
        self._waiting: deque[tuple[int, Conversation, int]] = deque()  # since, who, its messages then

    def held(self, step: int) -> int:
        """Tokens. A message under way is taken to have one for each step since it was asked for."""
        return self._known + len(self._asked) * step - self._asked_steps

    def asked(self, conversation: Conversation, step: int) -> None:
        """Its next message is being generated, behind `prompt_tokens`."""
        self._set(conversation, conversation.prompt_tokens - conversation.shared_tokens)
        self._asked[conversation] = step
        self._asked_steps += step

    def answered(self, conversation: Conversation, tokens: int) -> None:
        """The message has ended, after so many tokens."""
        self._forget_asked(conversation)
        self._set(conversation, conversation.held + tokens)

    def left(self, conversation: Conversation) -> None:
        """It is not alive any more."""
        self._forget_asked(conversation)
        self._set(conversation, 0)

    def waits(self, conversation: Conversation, step: int) -> None:
        """It waits for its cohort from now on, and was used last now."""
        self._waiting.append((step, conversation, len(conversation.message_ids)))

    def take_unused(self, step: int, *, after: float) -> list[Conversation]:
        """Those that wait and have not been used for so many steps; they count as used now."""
        unused = []
        while self._waiting and step - self._waiting[0][0] >= after:
            _, conversation, messages = self._waiting.popleft()
            if conversation in conversation.cohort.ended and len(conversation.message_ids) == messages:
                unused.append(conversation)
                self._waiting.append((step, conversation, messages))
        return unused

    def _forget_asked(self, conversation: Conversation) -> None:
        self._asked_steps -= self._asked.pop(conversation, 0)

    def _set(self, conversation: Conversation, tokens: int) -> None:
        self._known += tokens - conversation.held
        conversation.held = tokens
