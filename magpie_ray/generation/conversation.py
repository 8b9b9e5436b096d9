"""A conversation while it is being generated, its cohort, and the recipe that all of a build are made by.

What always holds: `message_ids` are the accepted messages, alternating from the user's; `messages` has these,
and behind them at most the one that ended the attempt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from magpie_ray.acceptance import Rule
from magpie_ray.chat_format.format import Reasoning
from magpie_ray.engine.protocol import Sampling
from magpie_ray.generation.attempt_queue import Attempt
from magpie_ray.types import Message, Rejection, Role, Row, SystemPrompt


class Format(Protocol):
    """What rounds needs of a ChatFormat."""

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]: ...

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingPair:
    """How a row's messages of both roles are sampled. The weights of a recipe's pairs sum to one."""

    user: Sampling
    assistant: Sampling
    weight: float = 1.0

    def of(self, role: Role) -> Sampling:
        """How messages of the role are sampled."""
        return self.user if role == "user" else self.assistant


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What decides the content of every row of a build. Shared by all of its engines.

    messages_per_row: generated messages, alternating from the user's. decode: token ids of several messages
    -> their texts, special tokens kept. encode: a part of what was generated, as that message of a dialogue
    with that system prompt -> token ids. reasoning: how it is told from the content of answers; None without
    thinking. min_accept_rate: of the first attempts. retries_turn: a rejected row goes on after the whole
    turns it has. stops_when_full: one that outgrows the context ends with these, and is not rejected.
    """

    chat_format: Format
    decode: Callable[[list[list[int]]], list[str]]
    rules: tuple[Rule, ...]
    samplings: tuple[SamplingPair, ...]
    messages_per_row: int
    prompts: tuple[SystemPrompt, ...]
    seed: int
    reproducible: bool
    max_attempts: int
    reasoning: Reasoning | None = None
    encode: Callable[[str, int, str | None], list[int]] | None = None
    min_accept_rate: float = 0.0
    retries_turn: bool = False
    stops_when_full: bool = False


@dataclass(slots=True, eq=False)
class Cohort:
    """Conversations on their way through one turn; `ended` have ended it and wait for the others.

    turns_behind: those that all members have ended. began: the engine step in which this one began. turns:
    the tokens and engine steps that each of those took that have ended it, finished ones included.
    """

    members: int
    turns_behind: int = 0
    began: int = 0
    ended: list["Conversation"] = field(default_factory=list)
    turns: list[tuple[int, int]] = field(default_factory=list)

    def begin(self, step: int) -> None:
        """Another turn begins."""
        self.turns_behind += 1
        self.began = step
        self.turns.clear()

    def note_turn(self, conversation: "Conversation", step: int) -> None:
        """It has ended a whole turn."""
        self.turns.append((conversation.held - conversation.held_before, step - self.began))
        conversation.held_before = conversation.held

    def leave(self, conversation: "Conversation") -> None:
        """It is finished, rejected or not wanted any more."""
        self.members -= 1
        if conversation in self.ended:
            self.ended.remove(conversation)

    def take_ready(self) -> list["Conversation"]:
        """Everybody, once all who are still in it have ended the turn; until then nobody."""
        if len(self.ended) < self.members:
            return []
        ready, self.ended = self.ended, []
        return ready


@dataclass(slots=True, eq=False)
class Conversation:
    """One attempt at a row.

    sampling: how its messages are sampled, the recipe's `sampling_key`. request_id: of the last message asked
    for. held: tokens of the engine's cache, but for the first shared_tokens; held_before: the same when the
    turn began. inherited: messages that an earlier attempt has generated.
    """

    row_id: int
    attempt: int
    system_prompt: SystemPrompt | None
    prefix: tuple[int, ...]
    sampling: SamplingPair
    sampling_key: int
    cohort: Cohort
    shared_tokens: int = 0
    message_ids: list[list[int]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    prompt_tokens: int = 0
    request_id: int = -1
    held: int = 0
    held_before: int = 0
    inherited: int = 0

    @property
    def next_role(self) -> Role:
        """Whose message is being generated, or is next."""
        return "assistant" if len(self.message_ids) % 2 else "user"

    @property
    def known_tokens(self) -> int:
        """Of its next prompt: those that the engine has read or written before."""
        if not self.message_ids:
            return self.shared_tokens
        if self.messages and self.messages[-1].reasoning:
            return self.prompt_tokens  # without it the content stands in another place
        return self.prompt_tokens + len(self.message_ids[-1])

    @property
    def next_turn(self) -> int:
        """The turn of that message, from 1."""
        return len(self.message_ids) // 2 + 1

    def complete_messages(self, messages_per_row: int) -> int:
        """The most accepted messages that end as a row of `messages_per_row` does: with the same role."""
        accepted = len(self.message_ids)
        return accepted - (messages_per_row - accepted) % 2 if accepted else 0

    def row(self) -> Row:
        """The finished row."""
        return Row(
            row_id=self.row_id,
            messages=tuple(self.messages),
            system_prompt=self.system_prompt,
            attempt=self.attempt,
            sampling_key=self.sampling_key,
        )

    def reject(self, reason: str, *, text: str, keep_turns: bool) -> tuple[Rejection, Attempt]:
        """The attempt as one that failed with the message that is next, and the one that comes after it.

        keep_turns: that goes on after the whole turns of this one, unless this one was a second try at the
        same turn: what is behind it may be why nothing good comes of it.
        """
        kept = self.next_turn * 2 - 2 if keep_turns else 0
        kept = 0 if kept == self.inherited else kept
        accepted = tuple(self.messages[: len(self.message_ids)])
        dropped = self.messages[kept:]
        rejection = Rejection(
            row_id=self.row_id,
            attempt=self.attempt,
            role=self.next_role,
            turn=self.next_turn,
            reason=reason,
            text=text,
            messages=accepted,
            system_prompt=self.system_prompt,
            user_tokens=sum(m.completion_tokens for m in dropped if m.role == "user"),
            assistant_tokens=sum(m.completion_tokens for m in dropped if m.role == "assistant"),
        )
        following = Attempt(
            row_id=self.row_id,
            number=self.attempt + 1,
            messages=accepted[:kept],
            message_ids=tuple(self.message_ids[:kept]),
        )
        return rejection, following
