"""Turn-synchronous rounds: cohorts of conversations over one engine.

No member of a cohort starts turn k+1 before all members have ended turn k. Several cohorts are in flight at
once, so that the stragglers of one overlap with the work of the others. Inside a turn there is no barrier:
the request for a row's answer follows its own accepted user message at once. A rejected row leaves its cohort
and joins a later one as a new attempt: one that starts or, where the recipe lets the row continue after its
whole turns, one that has completed as many.

Invariants: every row added and not discarded comes out once as a Row, after one Rejection for each failed
attempt; a conversation stays token ids from start to end; decoding and acceptance run on the executor while
the engine steps on.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from itertools import count
from statistics import fmean as mean

from magpie_ray.acceptance import CONTEXT_FULL
from magpie_ray.engine.protocol import Engine
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.attempt_queue import Attempt, AttemptQueue
from magpie_ray.generation.cache_use import CacheUse
from magpie_ray.generation.conversation import Cohort, Conversation
from magpie_ray.generation.early_stop import EarlyStop
from magpie_ray.generation.recipe import Recipe
from magpie_ray.generation.verdicts import Verdict, Verdicts
from magpie_ray.types import Rejection, Row

# The engine keeps a system prompt in its prefix cache when that many slots start with it.
_SLOTS_PER_SHARED_PROMPT = 8
# An engine without requests waits for verdicts no longer in one step: orders and reports are due.
_VERDICT_SECONDS = 1.0


class Rounds:
    """Drives one engine over the rows that are added. One thread calls all methods.

    Without an executor, acceptance runs in the caller's thread, which makes rounds deterministic.
    """

    def __init__(
        self, engine: Engine, recipe: Recipe, window: AdmissionWindow, *, executor: Executor | None = None
    ) -> None:
        self.engine = engine
        self._recipe = recipe
        self.window = window
        self._queue = AttemptQueue()
        self._verdicts = Verdicts(recipe, executor)
        self._cache_use = CacheUse()
        self._early_stop = EarlyStop(recipe)
        self._requests: dict[int, Conversation] = {}  # in the engine, by request id
        self._request_ids = count()
        self._outcomes: list[Row | Rejection] = []
        self._steps = 0
        slots = _SLOTS_PER_SHARED_PROMPT * recipe.distinct_prompts
        self._shares_prefix = slots <= engine.figures.max_num_seqs
        self.more_to_come = False  # rows may be added; else the last ones start in their own way
        self.live: dict[int, Conversation] = {}  # neither finished nor rejected, by row id
        self.known_tokens = 0  # of all prompts: tokens that had been prefilled or decoded before

    @property
    def unstarted(self) -> int:
        """Rows added whose first attempt has not started."""
        return self._queue.unstarted

    @property
    def busy(self) -> bool:
        """Whether any row that was added, and not discarded, has not come out yet."""
        return bool(self.live or self._queue or self._outcomes)

    @property
    def decided(self) -> int:
        """Completions that have their verdict."""
        return self._verdicts.decided

    @property
    def awaited_rule(self) -> str:
        """The acceptance rule for which the engine has to wait; "" while it has requests."""
        return self._verdicts.rule if self._verdicts.pending and not self.engine.outstanding else ""

    @property
    def awaited_inputs(self) -> int:
        """Rows added that can't start yet, because their inputs are being loaded."""
        return 0

    def add(self, row_ids: Iterable[int]) -> None:
        """Queue rows. They start in order."""
        self._queue.add(row_ids)

    def discard(self, rows: range) -> None:
        """Drop rows that were added: none of them comes out of `step` from now on.

        Conversations that waited for these rows alone begin their next turn, so the errors of `step` may be
        raised for other rows.
        """
        self._queue.discard(rows)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.row_id not in rows]
        dropped = [conversation for row_id, conversation in self.live.items() if row_id in rows]
        for conversation in dropped:
            self._remove(conversation)
        self._early_stop.discard(rows)
        # The verdict on a completed message finds its conversation gone.
        self.engine.abort([c.request_id for c in dropped if self._requests.pop(c.request_id, None)])
        for cohort in dict.fromkeys(conversation.cohort for conversation in dropped):
            self._open_barrier(cohort)

    def step(self) -> list[Row | Rejection]:
        """Start the cohorts that fit, advance the engine by one step, and return the outcomes since.

        RowExhaustedError when a row is rejected for the last time, AcceptRateError when a prompt group is
        accepted too seldom; EngineError from the engine.
        """
        wait_seconds = 0.0 if self.engine.outstanding else _VERDICT_SECONDS
        for verdict in self._verdicts.take(wait_seconds=wait_seconds):
            if self.live.get(verdict.conversation.row_id) is verdict.conversation:
                self._apply(verdict)
        while any(
            self._start_cohort(turns)
            for turns in self._queue.due(c.cohort.completed_turns for c in self.live.values())
        ):
            pass
        if self.engine.outstanding:
            self._refresh()
            self._steps += 1
            if completions := self.engine.step():
                self._verdicts.submit([(self._requests.pop(c.request_id), c) for c in completions])
        return self.take_outcomes()

    def take_outcomes(self) -> list[Row | Rejection]:
        """Outcomes since the last call. After an error, those that the failed step would have returned."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _start_cohort(self, turns: int) -> bool:
        """Start a cohort of attempts that continue after that many turns, if the window admits it."""
        left = None
        if not self.more_to_come:
            left = self._queue.waiting(0) + self._queue.continuing + self.awaited_inputs
        size = min(self._queue.waiting(turns), self.window.next_size(left))
        # Attempts that will join a cohort in flight keep their places.
        reserved = self._queue.continuing - (size if turns else 0)
        if not self.window.admits(
            size,
            step=self._steps,
            # A conversation without a verdict returns to the engine, or leaves its slot to another.
            outstanding=len(self._requests) + self._verdicts.pending,
            live=len(self.live),
            kv_tokens=self._cache_use.kv_tokens(self._steps),
            left=left,
            reserved=reserved,
        ):
            return False
        self.window.start(size, step=self._steps)
        is_whole = size == self.window.cohort_size
        cohort = Cohort(members=0, completed_turns=turns, began=self._steps, is_whole=is_whole)
        # All join before any is submitted: a conversation that is rejected at once joins a later cohort.
        for conversation in self._join(cohort, self._queue.take(turns, size)):
            self._submit(conversation)
        return True

    def _join(self, cohort: Cohort, attempts: Iterable[Attempt]) -> list[Conversation]:
        """Make the attempts live as members of the cohort."""
        joined = [
            Conversation.begin(attempt, self._recipe, cohort, shares_prefix=self._shares_prefix)
            for attempt in attempts
        ]
        cohort.members += len(joined)
        for conversation in joined:
            self.live[conversation.row_id] = conversation
            self._early_stop.start(conversation)
        return joined

    def _refresh(self) -> None:
        """Let the engine use the cached prefixes of waiting conversations before it evicts them."""
        kv_tokens = self._cache_use.kv_tokens(self._steps)
        after = self.window.refresh_after(outstanding=self.engine.outstanding, kv_tokens=kv_tokens)
        for conversation in self._cache_use.take_unused(self._steps, after=after):
            # The part of the prompt after the last message was never prefilled: a token of it is enough.
            self.engine.refresh(self._next_prompt(conversation)[: conversation.known_tokens + 1])

    def _next_prompt(self, conversation: Conversation) -> list[int]:
        start = conversation.start
        return self._recipe.chat_format.prompt(start.known_as or start.prefix, conversation.message_ids)

    def _submit(self, conversation: Conversation) -> None:
        """Submit the request for the conversation's next message."""
        prompt_ids = self._next_prompt(conversation)
        if len(prompt_ids) >= self.engine.figures.max_model_len:
            self._outgrow(conversation, text="")
            return
        if conversation.repeats_prompt and len(conversation.message_ids) == conversation.given:
            conversation.shared_tokens = len(prompt_ids)
        self.known_tokens += conversation.known_tokens
        request = conversation.request(self._recipe, prompt_ids, request_id=next(self._request_ids))
        self._requests[request.request_id] = conversation
        self._cache_use.submit(conversation, self._steps)
        self.engine.submit(request)

    def _apply(self, verdict: Verdict) -> None:
        conversation, message = verdict.conversation, verdict.message
        conversation.messages.append(message)
        self._cache_use.complete(conversation, message.completion_tokens)
        if verdict.reason is None:
            conversation.message_ids.append(verdict.token_ids)
            self._advance(conversation)
        elif verdict.reason == CONTEXT_FULL:
            self._outgrow(conversation, text=message.text)
        else:
            self._reject(conversation, verdict.reason, text=message.text)

    def _advance(self, conversation: Conversation) -> None:
        """After an accepted message: request the answer, finish the row, or wait for the cohort."""
        generated = len(conversation.messages) - conversation.given
        is_last = generated == self._recipe.messages_per_row
        if conversation.next_role == "assistant" and not is_last:
            self._submit(conversation)
            return
        cohort = conversation.cohort
        if conversation.next_role == "user" or self._recipe.messages_per_row == 1:
            cohort.note_turn(conversation, self._steps)
        if is_last:
            self._finish(conversation)
            return
        cohort.waiting.append(conversation)
        self._cache_use.wait(conversation, self._steps)
        self._open_barrier(cohort)

    def _open_barrier(self, cohort: Cohort) -> None:
        """Begin the cohort's next turn once all members have ended this one."""
        if not cohort.is_ready:
            return
        if cohort.turns:
            tokens, steps = zip(*cohort.turns, strict=True)
            slowest = max(steps) if cohort.is_whole else None
            self.window.learn(tokens=mean(tokens), steps=mean(steps), cohort_steps=slowest)
        ready = cohort.begin_turn(self._steps)
        if ready:
            ready += self._join(cohort, self._queue.take(cohort.completed_turns))
        for conversation in ready:
            self._submit(conversation)

    def _outgrow(self, conversation: Conversation, *, text: str) -> None:
        """The context is full: finish the row with its whole turns, or reject the attempt."""
        complete = conversation.complete_messages(self._recipe.messages_per_row)
        if complete and self._recipe.acceptance.context_full == "stop":
            del conversation.messages[complete:]
            self._finish(conversation)
        else:
            self._reject(conversation, CONTEXT_FULL, text=text)

    def _finish(self, conversation: Conversation) -> None:
        self._outcomes.append(conversation.row())
        self._early_stop.finish(conversation.row_id)
        self._remove(conversation)
        self._open_barrier(conversation.cohort)

    def _reject(self, conversation: Conversation, reason: str, *, text: str) -> None:
        # Turns that have filled the context would fill it again.
        keep_turns = self._recipe.acceptance.retry_from == "last_turn" and reason != CONTEXT_FULL
        rejection, retry = conversation.reject(reason, text=text, keep_turns=keep_turns)
        self._outcomes.append(rejection)
        if self._early_stop.reject(conversation, rejection, retry):
            complete = conversation.complete_messages(self._recipe.messages_per_row)
            del conversation.messages[complete or conversation.given :]
            self._finish(conversation)
            return
        self._queue.add_retry(retry)
        self._remove(conversation)
        self._open_barrier(conversation.cohort)

    def _remove(self, conversation: Conversation) -> None:
        """The conversation is not live any more."""
        del self.live[conversation.row_id]
        self._cache_use.release(conversation)
        conversation.cohort.leave(conversation)
