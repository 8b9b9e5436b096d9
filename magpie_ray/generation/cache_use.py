"""The KV cache that live conversations occupy, and which of them the engine is about to evict.

Invariants: a conversation that is not live occupies nothing and is not remembered. Units: tokens and engine
steps.
"""

from itertools import takewhile

from magpie_ray.generation.conversation import Conversation


class CacheUse:
    """Bookkeeping for one engine. A prefix shared by conversations (`shared_tokens`) is not counted."""

    def __init__(self) -> None:
        self._settled = 0  # tokens of all conversations, without those of messages being decoded
        self._submitted: dict[Conversation, int] = {}  # the step in which its message was submitted
        self._submitted_steps = 0  # their sum
        # The step of the last use, by conversation that waits for its cohort; the earliest first.
        self._waiting: dict[Conversation, int] = {}

    def kv_tokens(self, step: int) -> int:
        """Tokens in use. A message being decoded is taken to have one for each step since its submission."""
        return self._settled + len(self._submitted) * step - self._submitted_steps

    def submit(self, conversation: Conversation, step: int) -> None:
        """The conversation's next message is submitted: the engine prefills its prompt."""
        self._settle(conversation, conversation.prompt_tokens - conversation.shared_tokens)
        self._waiting.pop(conversation, None)
        self._submitted[conversation] = step
        self._submitted_steps += step

    def complete(self, conversation: Conversation, tokens: int) -> None:
        """The message is complete, with that many tokens."""
        self._settle(conversation, conversation.kv_tokens + tokens)

    def release(self, conversation: Conversation) -> None:
        """The conversation is not live any more."""
        self._waiting.pop(conversation, None)
        self._settle(conversation, 0)

    def wait(self, conversation: Conversation, step: int) -> None:
        """From this step on, the conversation waits for its cohort, until it is submitted or released."""
        self._waiting[conversation] = step

    def take_unused(self, step: int, *, after: float) -> list[Conversation]:
        """Waiting conversations whose cache was last used `after` steps ago; it counts as used now."""
        unused = list(takewhile(lambda waiting: step - self._waiting[waiting] >= after, self._waiting))
        for conversation in unused:
            del self._waiting[conversation]
            self._waiting[conversation] = step
        return unused

    def _settle(self, conversation: Conversation, tokens: int) -> None:
        self._submitted_steps -= self._submitted.pop(conversation, 0)
        self._settled += tokens - conversation.kv_tokens
        conversation.kv_tokens = tokens
