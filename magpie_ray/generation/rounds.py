"""Turn-synchronous rounds: cohorts of conversations over one engine.

A cohort is a set of conversations in which nobody starts turn k+1 before all of it has ended turn k. Several
cohorts are in flight at once, so that one cohort's stragglers overlap with the others' work. Inside a turn
there is no barrier: a row's assistant request follows its own accepted user message at once. A rejected row
leaves its cohort and joins a later one under a new attempt: one that begins, or, where the recipe lets it go
on after the turns it has, one that has come as far.

What always holds: every row added and not discarded comes out exactly once as a Row, after one Rejection for
each failed attempt; a conversation stays token ids from start to end; judging (decoding, acceptance) happens
on the executor while the engine steps on.
"""

from collections.abc import Iterable
from concurrent.futures import Executor
from statistics import fmean as mean

from magpie_ray import draws
from magpie_ray.acceptance import CONTEXT_FULL
from magpie_ray.engine.protocol import Engine, Request
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.attempt_queue import Attempt, AttemptQueue
from magpie_ray.generation.cache_use import CacheUse
from magpie_ray.generation.conversation import Cohort, Conversation, Recipe
from magpie_ray.generation.early_stop import EarlyStop
from magpie_ray.generation.verdicts import Judge, Verdict
from magpie_ray.types import Rejection, Row

# A system prompt is held once in the cache when so many slots of the engine begin with it.
_SLOTS_PER_SHARED_PROMPT = 8


class Rounds:
    """Drives one engine over the rows that are added. One thread calls all methods.

    With no executor, judging happens in the caller's thread (deterministic).
    """

    def __init__(
        self, engine: Engine, recipe: Recipe, window: AdmissionWindow, *, executor: Executor | None = None
    ) -> None:
        self._engine = engine
        self._recipe = recipe
        self._window = window
        self._judge = Judge(recipe, executor)
        self._cache_use = CacheUse()
        self._early_stop = EarlyStop(max_attempts=recipe.max_attempts, min_accept_rate=recipe.min_accept_rate)
        self._queue = AttemptQueue()
        self._live: dict[int, Conversation] = {}  # by row_id
        self._in_engine: dict[int, Conversation] = {}  # by request_id
        self._outcomes: list[Row | Rejection] = []
        self._next_request = 0
        self._steps = 0
        self.known_tokens = 0  # of all prompts: what had been read or written before
        slots = _SLOTS_PER_SHARED_PROMPT * len(recipe.prompts)
        self._shares_prompts = slots <= engine.figures.max_num_seqs

    @property
    def unstarted(self) -> int:
        """Rows added whose first attempt has not begun."""
        return self._queue.unstarted

    @property
    def live(self) -> int:
        """Conversations that are neither finished nor rejected."""
        return len(self._live)

    @property
    def busy(self) -> bool:
        """Whether any row that was added, and not discarded, has not come out yet."""
        return bool(self._live or self._queue or self._outcomes)

    def add(self, row_ids: Iterable[int]) -> None:
        """Queue rows; they are started in order."""
        self._queue.add(row_ids)

    def discard(self, rows: range) -> None:
        """Rows that were added are not wanted any more: none of them comes out of `step` from now on.

        Raises what `step` does, for others: those whose cohort waited for these alone begin their next turn.
        """
        self._queue.discard(rows)
        self._outcomes = [outcome for outcome in self._outcomes if outcome.row_id not in rows]
        dropped = [conversation for row_id, conversation in self._live.items() if row_id in rows]
        for conversation in dropped:
            del self._live[conversation.row_id]
            self._cache_use.left(conversation)
            conversation.cohort.leave(conversation)
            self._early_stop.withdraw(conversation.row_id, conversation.attempt)
        for row_id in rows:
            self._early_stop.forget(row_id)
        # A verdict that is still to come finds its conversation gone.
        in_engine = [c.request_id for c in dropped if self._in_engine.pop(c.request_id, None)]
        self._engine.abort(in_engine)
        for cohort in dict.fromkeys(conversation.cohort for conversation in dropped):
            self._open_barrier(cohort)

    def step(self) -> list[Row | Rejection]:
        """Start what fits, advance the engine by one step, and hand out what has ended since.

        RowExhaustedError when a row is rejected for the last time, AcceptRateError when too few of the first
        attempts are accepted; EngineError from the engine.
        """
        for verdict in self._judge.verdicts(wait=not self._engine.outstanding):
            if self._live.get(verdict.conversation.row_id) is verdict.conversation:
                self._act_on(verdict)
        self._start_cohorts()
        if self._engine.outstanding:
            self._refresh()
            self._steps += 1
            completions = self._engine.step()
            if completions:
                self._judge.submit([(self._in_engine.pop(c.request_id), c) for c in completions])
        return self.take_outcomes()

    def take_outcomes(self) -> list[Row | Rejection]:
        """What has ended since: after an error, what the failed step would have handed out."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _start_cohorts(self) -> None:
        while any(
            self._start_cohort(turns)
            for turns in self._queue.due(c.cohort.turns_behind for c in self._live.values())
        ):
            pass

    def _start_cohort(self, turns: int) -> bool:
        """Start one with attempts that have so many turns behind them, if the window admits it."""
        size = min(self._queue.waiting(turns), self._window.cohort_size)
        # Those that wait for a cohort which has come as far as they have keep their places.
        reserved = self._queue.continuing - (size if turns else 0)
        if not self._window.admits(
            size,
            step=self._steps,
            # Those that are being judged come back to the engine, or leave their slots to others.
            outstanding=len(self._in_engine) + self._judge.backlog,
            live=self.live,
            held=self._cache_use.held(self._steps),
            reserved=reserved,
        ):
            return False
        self._window.started(size, step=self._steps)
        cohort = Cohort(members=0, turns_behind=turns, began=self._steps)
        # All are chosen before any is submitted: one that is rejected at once joins a later cohort.
        for conversation in self._join(cohort, self._queue.take(turns, size)):
            self._submit(conversation)
        return True

    def _join(self, cohort: Cohort, attempts: Iterable[Attempt]) -> list[Conversation]:
        """Conversations that begin, or go on, as members of the cohort."""
        joined = [self._conversation(attempt, cohort) for attempt in attempts]
        cohort.members += len(joined)
        for conversation in joined:
            self._live[conversation.row_id] = conversation
            self._early_stop.began(conversation.row_id, conversation.attempt)
        return joined

    def _conversation(self, attempt: Attempt, cohort: Cohort) -> Conversation:
        recipe, row_id = self._recipe, attempt.row_id
        prompt = draws.system_prompt_of(row_id, seed=recipe.seed, prompts=recipe.prompts)
        prefix = recipe.chat_format.prefix(prompt.text if prompt else None)
        sampling = draws.sampling_of(row_id, seed=recipe.seed, weights=[s.weight for s in recipe.samplings])
        return Conversation(
            row_id=row_id,
            attempt=attempt.number,
            system_prompt=prompt,
            prefix=prefix,
            sampling=recipe.samplings[sampling],
            sampling_key=sampling,
            cohort=cohort,
            shared_tokens=len(prefix) if self._shares_prompts else 0,
            message_ids=list(attempt.message_ids),
            messages=list(attempt.messages),
            prompt_tokens=attempt.messages[-1].prompt_tokens if attempt.messages else 0,
            inherited=len(attempt.messages),
        )

    def _refresh(self) -> None:
        """Let the engine use what it has cached of waiting conversations before it evicts it."""
        held = self._cache_use.held(self._steps)
        after = self._window.refresh_after(outstanding=self._engine.outstanding, held=held)
        for conversation in self._cache_use.take_unused(self._steps, after=after):
            prompt = self._recipe.chat_format.prompt(conversation.prefix, conversation.message_ids)
            # Of what comes behind the last message, which was never read, no more than a token.
            self._engine.refresh(prompt[: conversation.known_tokens + 1])

    def _submit(self, conversation: Conversation) -> None:
        """Ask for the conversation's next message."""
        recipe = self._recipe
        prompt_ids = recipe.chat_format.prompt(conversation.prefix, conversation.message_ids)
        if len(prompt_ids) >= self._engine.figures.max_model_len:
            self._outgrow(conversation, text="")
            return
        self.known_tokens += conversation.known_tokens
        conversation.prompt_tokens = len(prompt_ids)
        seed = None
        if recipe.reproducible:
            seed = draws.request_seed(
                conversation.row_id,
                seed=recipe.seed,
                attempt=conversation.attempt,
                message=len(conversation.message_ids),
            )
        role = conversation.next_role
        conversation.request_id = self._next_request
        self._next_request += 1
        request = Request(
            request_id=conversation.request_id,
            prompt_token_ids=prompt_ids,
            sampling=conversation.sampling.of(role),
            seed=seed,
        )
        self._in_engine[request.request_id] = conversation
        self._cache_use.asked(conversation, self._steps)
        self._engine.submit(request)

    def _act_on(self, verdict: Verdict) -> None:
        conversation, message = verdict.conversation, verdict.message
        conversation.messages.append(message)
        self._cache_use.answered(conversation, message.completion_tokens)
        if verdict.reason is None:
            conversation.message_ids.append(verdict.token_ids)
            self._advance(conversation)
        elif verdict.reason == CONTEXT_FULL:
            self._outgrow(conversation, text=message.text)
        else:
            self._reject(conversation, verdict.reason, text=message.text)

    def _advance(self, conversation: Conversation) -> None:
        """After an accepted message: finish the row, ask for the answer, or wait for the cohort."""
        last = len(conversation.messages) == self._recipe.messages_per_row
        if conversation.next_role == "assistant" and not last:
            self._submit(conversation)
            return
        cohort = conversation.cohort
        if conversation.next_role == "user" or self._recipe.messages_per_row == 1:
            cohort.note_turn(conversation, self._steps)
        if last:
            self._finish(conversation)
            return
        cohort.ended.append(conversation)
        self._cache_use.waits(conversation, self._steps)
        self._open_barrier(cohort)

    def _outgrow(self, conversation: Conversation, *, text: str) -> None:
        """The context is full: the row ends with the whole turns it has, or is rejected."""
        complete = conversation.complete_messages(self._recipe.messages_per_row)
        if complete and self._recipe.stops_when_full:
            del conversation.messages[complete:]
            self._finish(conversation)
        else:
            self._reject(conversation, CONTEXT_FULL, text=text)

    def _finish(self, conversation: Conversation) -> None:
        self._outcomes.append(conversation.row())
        self._early_stop.forget(conversation.row_id)
        self._leave(conversation)

    def _reject(self, conversation: Conversation, reason: str, *, text: str) -> None:
        # What has filled the context would fill it again.
        keep_turns = self._recipe.retries_turn and reason != CONTEXT_FULL
        rejection, following = conversation.reject(reason, text=text, keep_turns=keep_turns)
        self._outcomes.append(rejection)
        self._early_stop.rejected(rejection)
        self._queue.add_later(following)
        self._leave(conversation)

    def _leave(self, conversation: Conversation) -> None:
        del self._live[conversation.row_id]
        self._cache_use.left(conversation)
        conversation.cohort.leave(conversation)
        self._open_barrier(conversation.cohort)

    def _open_barrier(self, cohort: Cohort) -> None:
        """Start the cohort's next turn once everybody still in it has ended this one."""
        if len(cohort.ended) < cohort.members:
            return
        if cohort.turns:
            tokens, steps = zip(*cohort.turns, strict=True)
            self._window.learn(tokens=mean(tokens), steps=mean(steps), cohort_steps=max(steps))
        cohort.begin(self._steps)
        ready = cohort.take_ready()
        if ready:
            ready += self._join(cohort, self._queue.take(cohort.turns_behind))
        for conversation in ready:
            self._submit(conversation)
