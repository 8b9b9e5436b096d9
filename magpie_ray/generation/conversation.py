"""A conversation while it is generated, and its cohort.

Invariants: `message_ids` are the accepted messages, alternating from the user's. `messages` are the same
messages as text, and after them at most the one that ended the attempt.
"""

from dataclasses import dataclass, field

from magpie_ray import draws
from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import Request
from magpie_ray.generation.attempt_queue import Attempt
from magpie_ray.generation.recipe import Recipe, SamplingPair, Start
from magpie_ray.types import Message, Rejection, Role, Row, SystemPrompt


@dataclass(slots=True, eq=False)
class Cohort:
    """Conversations that go through their turns together.

    completed_turns: by all members. began: the engine step in which the current turn began. is_whole: the
    cohort began with as many members as others. waiting: members that have ended the turn. turns: its tokens
    and steps for each conversation that has ended it, or finished.
    """

    members: int
    is_whole: bool = True
    completed_turns: int = 0
    began: int = 0
    waiting: list["Conversation"] = field(default_factory=list)
    turns: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_ready(self) -> bool:
        """Whether all members have ended the turn."""
        return len(self.waiting) >= self.members

    def begin_turn(self, step: int) -> list["Conversation"]:
        """Begin the next turn. Returns the members."""
        ready, self.waiting = self.waiting, []
        self.completed_turns += 1
        self.began = step
        self.turns.clear()
        return ready

    def note_turn(self, conversation: "Conversation", step: int) -> None:
        """Record the length of the turn that the conversation has ended."""
        self.turns.append((conversation.kv_tokens - conversation.kv_tokens_before, step - self.began))
        conversation.kv_tokens_before = conversation.kv_tokens

    def leave(self, conversation: "Conversation") -> None:
        """Remove a conversation that is finished, rejected or discarded."""
        self.members -= 1
        if conversation in self.waiting:
            self.waiting.remove(conversation)


@dataclass(slots=True, eq=False, kw_only=True)
class Conversation:
    """One attempt at a row.

    sampling_key: index of `sampling` in the recipe. inherited: messages that an earlier attempt generated,
    and those given before them. repeats_prompt: another answer to the same row is asked for first.
    prompt_tokens, request_id: of the last request. kv_tokens: tokens of the engine's KV cache, without the
    first shared_tokens, which other conversations use as well; kv_tokens_before: when the turn began.
    """

    row_id: int
    attempt: int
    start: Start
    sampling: SamplingPair
    sampling_key: int
    cohort: Cohort
    shared_tokens: int = 0
    message_ids: list[list[int]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    inherited: int = 0
    repeats_prompt: bool = False
    prompt_tokens: int = 0
    request_id: int = -1
    kv_tokens: int = 0
    kv_tokens_before: int = 0

    @classmethod
    def begin(
        cls, attempt: Attempt, recipe: Recipe, cohort: Cohort, *, shares_prefix: bool
    ) -> "Conversation":
        """The attempt as a member of the cohort. shares_prefix: the prefix is cached once for many rows."""
        row_id, seed, answers = attempt.row_id, recipe.seed, recipe.answers or 1
        start = recipe.start_of(row_id)
        weights = [pair.weight for pair in recipe.samplings]
        key = draws.sampling_of(row_id // answers, seed=seed, weights=weights)
        return cls(
            row_id=row_id,
            attempt=attempt.number,
            start=start,
            sampling=recipe.samplings[key],
            sampling_key=key,
            cohort=cohort,
            shared_tokens=len(start.prefix) if shares_prefix else 0,
            message_ids=[*(attempt.message_ids or start.given_ids)],
            messages=[*(attempt.messages or start.given)],
            inherited=len(attempt.messages),
            repeats_prompt=row_id % answers > 0,
            prompt_tokens=attempt.messages[-1].prompt_tokens if attempt.messages else 0,
        )

    @property
    def system_prompt(self) -> SystemPrompt | None:
        return self.start.system_prompt

    @property
    def given(self) -> int:
        """The messages that the row started with."""
        return len(self.start.given)

    @property
    def next_role(self) -> Role:
        """The role of the message that is generated now or next."""
        return "assistant" if len(self.message_ids) % 2 else "user"

    @property
    def next_turn(self) -> int:
        """The turn of that message, from 1."""
        return len(self.message_ids) // 2 + 1

    @property
    def sampling_of_next(self) -> SamplingSettings:
        """How that message is sampled."""
        return self.sampling.of(self.next_role).settings

    @property
    def known_tokens(self) -> int:
        """Tokens of the next prompt that the engine has prefilled or decoded before."""
        if len(self.message_ids) == self.given:
            return self.shared_tokens
        if self.messages and self.messages[-1].reasoning:
            return self.prompt_tokens  # without the reasoning, the content has other positions
        return self.prompt_tokens + len(self.message_ids[-1])

    def request(self, recipe: Recipe, prompt_ids: list[int], *, request_id: int) -> Request:
        """The request for the next message; noted as the conversation's last."""
        self.prompt_tokens, self.request_id = len(prompt_ids), request_id
        index, seed = len(self.message_ids), None
        if recipe.reproducible:
            seed = draws.request_seed(self.row_id, seed=recipe.seed, attempt=self.attempt, message=index)
        sampling = self.sampling.of(self.next_role)
        return Request(request_id=request_id, prompt_token_ids=prompt_ids, sampling=sampling, seed=seed)

    def complete_messages(self, messages_per_row: int) -> int:
        """The most accepted messages, with the given ones, that end with the same role as a whole row.

        0 where none is generated.
        """
        accepted = len(self.message_ids) - self.given
        complete = accepted - (messages_per_row - accepted) % 2 if accepted else 0
        return self.given + complete if complete else 0

    def row(self) -> Row:
        """The finished row."""
        return Row(
            row_id=self.row_id,
            messages=tuple(self.messages),
            system_prompt=self.system_prompt,
            attempt=self.attempt,
            sampling_key=self.sampling_key,
            input=self.start.input,
            given=self.given,
        )

    def reject(self, reason: str, *, text: str, keep_turns: bool) -> tuple[Rejection, Attempt]:
        """Returns the rejection of this attempt at its next message, and the row's next attempt.

        keep_turns: the next attempt continues after the whole turns of this one. If this attempt inherited
        the same turns, the next one starts the row again, because these turns may be the cause.
        """
        kept = self.next_turn * 2 - 2 if keep_turns else 0
        kept = 0 if kept == self.inherited or kept <= self.given else kept
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
            input_id=self.start.input.input_id if self.start.input else None,
            user_tokens=sum(m.completion_tokens for m in dropped if m.role == "user"),
            assistant_tokens=sum(m.completion_tokens for m in dropped if m.role == "assistant"),
        )
        retry = Attempt(
            row_id=self.row_id,
            number=self.attempt + 1,
            messages=accepted[:kept],
            message_ids=tuple(self.message_ids[:kept]),
            given=self.given,
        )
        return rejection, retry
