"""When the next cohort may start on one engine: enough conversations for its batch, few enough for its cache.

Conversations that wait for their cohort hold a part of the KV cache, or lose it and are read again. Where
that costs, no more are started than the cache holds, and at an even pace: those that start together grow
together, and would fill it all at once. Where the batch is so small that a step's time goes into reading the
weights, prompts are read almost for nothing, and the batch is filled whatever is evicted.

Pure arithmetic, in conversations, tokens and engine steps. What always holds: with nothing alive, a cohort
may start; what the config says of cohorts is taken as it is.
"""

import math
from dataclasses import dataclass

from magpie_ray.engine.protocol import EngineFigures

# A cohort of one would be no cohort. Larger ones wait longer for their last: of 16, 32 and 64 the smallest
# is the fastest wherever the cache is short, and no slower elsewhere (`jobs/benchmark.py rounds`).
COHORT_SIZE = 16
# What conversations may hold of the cache; the rest is for those that have just ended, which go last.
_CACHE_SHARE = 0.92
# Up to so many tokens a step are free: a GPU reads its weights in the time of their arithmetic (peak bf16
# FLOP/s over bytes/s: A100 153, H200 206, A10G 208, H100 295, L4 403).
_FREE_TOKENS = 200
# Tokens read again for each written one when running requests are preempted, in simulations of a full cache.
_PREEMPTED = 0.4
# Requests for each one that the cache lets run, where it is overcommitted: so many that one always waits.
_OVERCOMMIT = 2.5
# Requests for each slot where the cache is large enough for all their conversations at their longest: when no
# more begin, there is something else to do while a cohort waits. In simulation, ten builds of 8 to 48 rows a
# slot and two or three turns took 0.9% fewer steps in sum than with one for each; twice that gained no more.
_SPARE = 1.5
# A cohort of 16 ends its turn after so many times a conversation's mean (event simulation, magpie-lengths).
_COHORT_OVER_MEAN = 1.8
# A conversation's cache is refreshed before this part of what may come in between has come.
_REFRESH_EARLY, _REFRESH_AT_MOST_EVERY = 0.4, 16.0
# Cohorts whose turns the estimates are taken from.
_MEMORY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What conversations are like. All figures are means.

    turns: of a conversation. tokens: that a turn adds to it. steps: from a turn's begin until a conversation
    has ended it. cohort_steps: until the last of its cohort has.
    """

    turns: float
    tokens: float
    steps: float
    cohort_steps: float

    @property
    def running(self) -> float:
        """Tokens of cache times steps that a conversation holds while its messages are generated."""
        return self.steps * self.tokens * self.turns**2 / 2

    @property
    def holding(self) -> float:
        """The same over its life, in which it waits for its cohort after every turn but the last."""
        waits = (self.cohort_steps - self.steps) * self.tokens * self.turns * (self.turns - 1) / 2
        return self.running + max(0.0, waits)

    @property
    def life(self) -> float:
        """Steps from a conversation's start to its end."""
        return self.steps + max(0.0, self.turns - 1) * self.cohort_steps

    @property
    def work(self) -> float:
        """Steps of its life in which a message is generated."""
        return self.steps * self.turns


class AdmissionWindow:
    """How many conversations may be alive; learns from those that end their turns.

    None chooses. turns: of a conversation. tokens_per_turn: expected before any has ended.
    """

    def __init__(
        self,
        figures: EngineFigures,
        *,
        cohort_size: int | None = None,
        cohorts_in_flight: int | None = None,
        turns: float = 1.0,
        tokens_per_turn: float = 1.0,
    ) -> None:
        self._figures = figures
        self.cohort_size = cohort_size or COHORT_SIZE
        self._fixed = cohorts_in_flight and cohorts_in_flight * self.cohort_size
        tokens = max(1.0, tokens_per_turn)
        cohort_steps = tokens * (_COHORT_OVER_MEAN if self.cohort_size > 1 else 1.0)
        self._traffic = Traffic(turns=max(1.0, turns), tokens=tokens, steps=tokens, cohort_steps=cohort_steps)
        self._learnt = 0
        self._started_at, self._started_size = -math.inf, 0
        self._decide()

    def __str__(self) -> str:
        if self._fixed:
            return f"{self._fixed} conversations at once in cohorts of {self.cohort_size}"
        how = "more than the cache holds" if self._overcommitted else "within the cache"
        return f"about {self.live} conversations at once in cohorts of {self.cohort_size}, {how}"

    @property
    def live(self) -> int:
        """Conversations that are alive at once: at most where the config says so, else about so many."""
        return self._fixed or self._live

    def admits(
        self, size: int, *, step: int, outstanding: int, live: int, held: float, reserved: int = 0
    ) -> bool:
        """Whether a cohort may start now.

        outstanding: requests that the engine has. held: tokens of cache of the live conversations. reserved:
        places of conversations that will join others.
        """
        if self._fixed:
            # The batch is full: wait for more rows to make a whole cohort.
            whole = size == self.cohort_size or live < self._figures.max_num_seqs
            return live + reserved + size <= self._fixed and whole
        if not live:
            return True
        if outstanding >= self._limit:
            return False
        return self._overcommitted or (step >= self._next_start and held <= self._budget)

    @property
    def _next_start(self) -> float:
        """By what is known now of the conversations that were started last."""
        return self._started_at + self._started_size * self._steps_per_conversation

    def started(self, size: int, *, step: int) -> None:
        """A cohort has been started."""
        # Up to a step late is on time: steps are whole.
        self._started_at = min(float(step), max(self._next_start, step - 1.0))
        self._started_size = size

    def learn(self, *, tokens: float, steps: float, cohort_steps: float) -> None:
        """A whole cohort has ended a turn: means over its conversations, and how long it took them all."""
        self._learnt = min(self._learnt + 1, _MEMORY)
        old, part = self._traffic, 1 / self._learnt
        self._traffic = Traffic(
            turns=old.turns,
            tokens=max(1.0, old.tokens + (tokens - old.tokens) * part),
            steps=max(1.0, old.steps + (steps - old.steps) * part),
            cohort_steps=max(1.0, old.cohort_steps + (cohort_steps - old.cohort_steps) * part),
        )
        self._decide()

    def refresh_after(self, *, outstanding: int, held: float) -> float:
        """Steps after which a waiting conversation's cache is to be refreshed, before it is evicted.

        The engine evicts what was used longest ago, be it of a conversation that waits or of one that has
        ended. What comes in between is what has ended since: as many tokens a step as requests run.
        """
        if self._overcommitted:
            return math.inf
        free = self._figures.kv_cache_tokens - held
        return max(_REFRESH_AT_MOST_EVERY, _REFRESH_EARLY * free / max(1, outstanding))

    def _decide(self) -> None:
        """What follows from the traffic."""
        traffic, slots, cache = self._traffic, self._figures.max_num_seqs, self._figures.kv_cache_tokens
        self._budget = _CACHE_SHARE * cache
        within = min(float(slots), self._budget * traffic.work / traffic.holding)
        beyond = min(float(slots), cache * traffic.work / traffic.running)
        read_again = traffic.turns - 1 + _PREEMPTED
        self._overcommitted = within < slots and (
            _step_cost(beyond * (1 + read_again)) / beyond < _step_cost(within) / within
        )
        limit = min(float(slots), beyond * _OVERCOMMIT) if self._overcommitted else within
        self._limit = limit if self._overcommitted else float(slots)
        alive, longest = traffic.life / traffic.work, traffic.turns * traffic.tokens
        if within == slots and _SPARE * slots * alive * longest <= cache:
            limit = self._limit = _SPARE * slots
        self._live = max(self.cohort_size, round(limit * alive))
        self._steps_per_conversation = (
            0.0 if self._live * longest <= cache else traffic.holding / self._budget
        )


def _step_cost(tokens: float) -> float:
    """Time of a step that reads and writes so many tokens, in units of one of them."""
    return max(float(_FREE_TOKENS), tokens)
