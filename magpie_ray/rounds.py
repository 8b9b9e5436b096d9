"""Turn-synchronous rounds: cohorts of conversations over one engine.

A cohort is a set of conversations in which nobody starts turn k+1 before all of it has ended turn k. Several
cohorts are in flight at once, so that one cohort's stragglers overlap with the others' work. Inside a turn
there is no barrier: a row's assistant request follows its own accepted user message at once. A rejected row
leaves its cohort and joins a later one under a new attempt.

What always holds: every row added comes out exactly once as a Row, after one Rejection for each failed
attempt; a conversation stays token ids from start to end; judging (decoding, acceptance) happens on the
executor while the engine steps on.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Protocol

from magpie_ray import plan
from magpie_ray.acceptance import Rule, Utterance, reason_to_reject, remedy
from magpie_ray.engine import Engine
from magpie_ray.errors import RowExhaustedError
from magpie_ray.types import (
    Completion,
    Message,
    Rejection,
    Request,
    Role,
    Row,
    Sampling,
    SystemPrompt,
)
from magpie_ray.window import Window

_EXAMPLE_CHARACTERS = 200


class Format(Protocol):
    """What rounds needs of a ChatFormat."""

    def prefix(self, system_prompt: str | None) -> tuple[int, ...]: ...

    def prompt(self, prefix: Sequence[int], messages: Sequence[Sequence[int]]) -> list[int]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What decides the content of every row of a build. Shared by all of its engines.

    messages_per_row: generated messages, alternating from the user's. decode: token ids of several messages
    -> their texts, special tokens kept.
    """

    chat_format: Format
    decode: Callable[[list[list[int]]], list[str]]
    rules: tuple[Rule, ...]
    user: Sampling
    assistant: Sampling
    messages_per_row: int
    prompts: tuple[SystemPrompt, ...]
    seed: int
    reproducible: bool
    max_attempts: int


@dataclass(slots=True, eq=False)
class _Cohort:
    """Conversations on their way through one turn; `ended` have ended it and wait for the others."""

    members: int
    ended: list["_Conversation"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Conversation:
    row_id: int
    attempt: int
    system_prompt: SystemPrompt | None
    prefix: tuple[int, ...]
    cohort: _Cohort
    message_ids: list[list[int]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    prompt_tokens: int = 0

    @property
    def next_role(self) -> Role:
        return "assistant" if len(self.message_ids) % 2 else "user"

    def tokens(self, role: Role) -> int:
        return sum(m.completion_tokens for m in self.messages if m.role == role)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A judged completion: its message, and why it is rejected (None: accepted)."""

    conversation: _Conversation
    completion: Completion
    message: Message
    reason: str | None


class Rounds:
    """Drives one engine over the rows that are added. One thread calls all methods.

    With no executor, judging happens in the caller's thread (deterministic).
    """

    def __init__(
        self, engine: Engine, recipe: Recipe, window: Window, *, executor: Executor | None = None
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._window = window
        self._executor = executor
        self._fresh: deque[int] = deque()
        self._retries: deque[tuple[int, int]] = deque()  # (row_id, attempt)
        self._failures: dict[int, list[Rejection]] = {}  # of rows that are not finished yet
        self._in_engine: dict[int, _Conversation] = {}
        self._judging: deque[Future[list[_Verdict]]] = deque()
        self._outcomes: list[Row | Rejection] = []
        self._live = 0
        self._next_request = 0

    @property
    def unstarted(self) -> int:
        """Rows added whose first attempt has not begun."""
        return len(self._fresh)

    @property
    def live(self) -> int:
        """Conversations that are neither finished nor rejected."""
        return self._live

    @property
    def busy(self) -> bool:
        """Whether any row that was added has not come out yet."""
        return bool(self._live or self._fresh or self._retries)

    def add(self, row_ids: Iterable[int]) -> None:
        """Queue rows; they are started in order."""
        self._fresh.extend(row_ids)

    def step(self) -> list[Row | Rejection]:
        """Start what fits, advance the engine by one step, and hand out what has ended since.

        RowExhaustedError when a row is rejected for the last time; EngineError from the engine.
        """
        self._settle(wait=not self._engine.outstanding)
        self._start_cohorts()
        if self._engine.outstanding:
            completions = self._engine.step()
            if completions:
                self._judge([(self._in_engine.pop(c.request_id), c) for c in completions])
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _start_cohorts(self) -> None:
        while waiting := len(self._fresh) + len(self._retries):
            size = min(waiting, self._window.cohort_size)
            if self._live + size > self._window.live:
                return
            if size < self._window.cohort_size and self._live >= self._engine.figures.max_num_seqs:
                return  # the batch is full: wait for more rows to make a whole cohort
            self._start_cohort(size)

    def _start_cohort(self, size: int) -> None:
        cohort = _Cohort(members=size)
        self._live += size
        # All are chosen before any is submitted: one that is rejected at once joins a later cohort.
        starting = [
            self._retries.popleft() if self._retries else (self._fresh.popleft(), 1) for _ in range(size)
        ]
        for row_id, attempt in starting:
            prompt = plan.system_prompt_of(row_id, seed=self._recipe.seed, prompts=self._recipe.prompts)
            prefix = self._recipe.chat_format.prefix(prompt.text if prompt else None)
            self._submit(_Conversation(row_id, attempt, prompt, prefix, cohort))

    def _submit(self, conversation: _Conversation) -> None:
        """Ask for the conversation's next message."""
        recipe = self._recipe
        prompt_ids = recipe.chat_format.prompt(conversation.prefix, conversation.message_ids)
        if len(prompt_ids) >= self._engine.figures.max_model_len:
            self._reject(conversation, "context_full", example="")
            return
        conversation.prompt_tokens = len(prompt_ids)
        seed = None
        if recipe.reproducible:
            seed = plan.request_seed(
                conversation.row_id,
                seed=recipe.seed,
                attempt=conversation.attempt,
                message=len(conversation.message_ids),
            )
        request = Request(
            request_id=self._next_request,
            prompt_token_ids=prompt_ids,
            sampling=recipe.user if conversation.next_role == "user" else recipe.assistant,
            seed=seed,
        )
        self._next_request += 1
        self._in_engine[request.request_id] = conversation
        self._engine.submit(request)

    def _judge(self, completed: list[tuple[_Conversation, Completion]]) -> None:
        if self._executor is None:
            future: Future[list[_Verdict]] = Future()
            future.set_result(_verdicts(self._recipe, completed))
        else:
            future = self._executor.submit(_verdicts, self._recipe, completed)
        self._judging.append(future)

    def _settle(self, *, wait: bool) -> None:
        """Act on the verdicts that are there; with `wait`, on at least one batch if any is under way."""
        while self._judging and (wait or self._judging[0].done()):
            wait = False
            for verdict in self._judging.popleft().result():
                conversation = verdict.conversation
                conversation.messages.append(verdict.message)
                if verdict.reason is None:
                    conversation.message_ids.append(verdict.completion.token_ids)
                    self._advance(conversation)
                else:
                    self._reject(conversation, verdict.reason, example=verdict.message.text)

    def _advance(self, conversation: _Conversation) -> None:
        """After an accepted message: finish the row, ask for the answer, or wait for the cohort."""
        if len(conversation.messages) == self._recipe.messages_per_row:
            self._failures.pop(conversation.row_id, None)
            self._outcomes.append(
                Row(
                    row_id=conversation.row_id,
                    messages=tuple(conversation.messages),
                    system_prompt=conversation.system_prompt,
                    attempt=conversation.attempt,
                )
            )
            self._leave(conversation)
        elif conversation.next_role == "assistant":
            self._submit(conversation)
        else:
            conversation.cohort.ended.append(conversation)
            self._open_barrier(conversation.cohort)

    def _reject(self, conversation: _Conversation, reason: str, *, example: str) -> None:
        rejection = Rejection(
            row_id=conversation.row_id,
            attempt=conversation.attempt,
            role=conversation.next_role,
            turn=len(conversation.message_ids) // 2 + 1,
            reason=reason,
            example=example[:_EXAMPLE_CHARACTERS],
            user_tokens=conversation.tokens("user"),
            assistant_tokens=conversation.tokens("assistant"),
        )
        failures = self._failures.setdefault(conversation.row_id, [])
        failures.append(rejection)
        if len(failures) == self._recipe.max_attempts:
            raise RowExhaustedError(_exhausted(failures))
        self._outcomes.append(rejection)
        self._retries.append((conversation.row_id, conversation.attempt + 1))
        self._leave(conversation)

    def _leave(self, conversation: _Conversation) -> None:
        self._live -= 1
        conversation.cohort.members -= 1
        self._open_barrier(conversation.cohort)

    def _open_barrier(self, cohort: _Cohort) -> None:
        """Start the cohort's next turn once everybody still in it has ended this one."""
        if cohort.members and len(cohort.ended) == cohort.members:
            ready, cohort.ended = cohort.ended, []
            for conversation in ready:
                self._submit(conversation)


def _verdicts(recipe: Recipe, completed: list[tuple[_Conversation, Completion]]) -> list[_Verdict]:
    """Decode and judge; reads the conversations, changes nothing."""
    texts = recipe.decode([completion.token_ids for _, completion in completed])
    verdicts = []
    for (conversation, completion), text in zip(completed, texts, strict=True):
        role = conversation.next_role
        message = Message(
            role=role,
            text=text,
            finish_reason=completion.finish_reason,
            prompt_tokens=conversation.prompt_tokens,
            completion_tokens=completion.num_tokens,
        )
        utterance = Utterance(
            role=role, text=text, token_ids=completion.token_ids, finish_reason=completion.finish_reason
        )
        reason = reason_to_reject(utterance, recipe.rules)
        verdicts.append(_Verdict(conversation, completion, message, reason))
    return verdicts


def _exhausted(failures: list[Rejection]) -> str:
    [(prevailing, times)] = Counter(f.reason for f in failures).most_common(1)
    example = next(f for f in failures if f.reason == prevailing)
    return (
        f"row {example.row_id} was rejected {len(failures)} times (acceptance.max_attempts), "
        f"{times} of them for {prevailing!r}. Example, the {example.role}'s message of "
        f"turn {example.turn}: {example.example!r}. What to try: {remedy(prevailing, example.role)}. "
        "acceptance.max_attempts may be raised on this build; other settings need another output.path."
    )
