"""Admission control: when the next cohort may start on one engine.

The batch needs enough live conversations, the KV cache few enough. A conversation that waits for its cohort
occupies KV cache, or is evicted and prefilled again. Where prefill costs time, only as many conversations
are live as the cache holds, and they start at an even pace: conversations that start together grow together,
and would fill the cache all at once. Where the batch is so small that a step's time goes into reading the
weights, prefill is almost free, and the batch is filled whatever is evicted.

The last conversations, as many as are live at once, start at once where the cache holds them: the batch stays
full longer if they all are under way when no others are left. Each is a cohort of its own, because nothing
is left to run beside them while they wait for one another.

Pure arithmetic, in conversations, tokens and engine steps. Invariants: with nothing live, a cohort may start;
cohort sizes and numbers from the config are taken as they are.
"""

import math
from dataclasses import dataclass, replace

from magpie_ray.engine.protocol import EngineFigures

# Larger cohorts wait longer for their last member: of 16, 32 and 64 the smallest is the fastest wherever the
# cache is short, and within 1% of the others elsewhere (`jobs/benchmark.py rounds`).
COHORT_SIZE = 16
# The part of the KV cache for live conversations. The rest holds those that have just ended, evicted first.
_LIVE_SHARE = 0.92
# Tokens a step that cost nothing: a GPU reads its weights in the time of their arithmetic (peak bf16 FLOP/s
# over bytes/s: A100 153, H200 206, A10G 208, H100 295, L4 403).
_FREE_TOKENS = 200
# Tokens recomputed after preemptions for each generated one, in simulations of a full cache.
_RECOMPUTED = 0.4
# Requests for each one that the cache has room for, where it is overcommitted: one always waits.
_OVERCOMMIT = 2.5
# Requests for each slot where the cache holds all their conversations at their longest: the batch stays full
# while a cohort waits and no other may start. In simulation, ten builds of 8 to 48 rows a slot and two or
# three turns took 0.9% fewer steps in sum than with one for each slot; twice that gained no more.
_SPARE = 1.5
# Steps of a cohort of 16 for a turn over a conversation's mean (event simulation, magpie-lengths).
_COHORT_OVER_MEAN = 1.8
# A waiting conversation's cache is refreshed when this part of the tokens that would evict it may have come.
_REFRESH_MARGIN, _MIN_REFRESH_STEPS = 0.4, 16.0
# Cohorts whose turns the estimates are means of.
_MEMORY = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """What conversations are like. All figures are means.

    turns: of a conversation. tokens: added by a turn. steps: from a turn's begin until the conversation has
    ended it. cohort_steps: until the last of its cohort has.
    """

    turns: float
    tokens: float
    steps: float
    cohort_steps: float

    @property
    def running_steps(self) -> float:
        """Steps in which a conversation is in the batch."""
        return self.steps * self.turns

    @property
    def live_steps(self) -> float:
        """Steps from a conversation's start to its end."""
        return self.steps + max(0.0, self.turns - 1) * self.cohort_steps

    @property
    def running_kv(self) -> float:
        """Tokens of KV cache times the steps in which the conversation is in the batch."""
        return self.steps * self.tokens * self.turns**2 / 2

    @property
    def live_kv(self) -> float:
        """Tokens of KV cache times steps, with the waits for its cohort after every turn but the last."""
        waits = (self.cohort_steps - self.steps) * self.tokens * self.turns * (self.turns - 1) / 2
        return self.running_kv + max(0.0, waits)

    @property
    def longest(self) -> float:
        """Tokens of a conversation at its end."""
        return self.turns * self.tokens


class AdmissionWindow:
    """How many conversations may be live. Learns from those that end their turns.

    cohort_size, cohorts_in_flight: None chooses. turns: of a conversation. tokens_per_turn: expected before
    any has ended.
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
        self._last_cohort_size = self.cohort_size if cohort_size or self._fixed else 1
        tokens = max(1.0, tokens_per_turn)
        cohort_steps = tokens * (_COHORT_OVER_MEAN if self.cohort_size > 1 else 1.0)
        self.traffic = Traffic(turns=max(1.0, turns), tokens=tokens, steps=tokens, cohort_steps=cohort_steps)
        self._cohorts_seen = 0
        self._last_start, self._last_size = -math.inf, 0
        self._adapt()

    def __str__(self) -> str:
        if self._fixed:
            return f"{self._fixed} conversations at once in cohorts of {self.cohort_size}"
        how = "more than the cache holds" if self._overcommitted else "within the cache"
        return f"about {self.live} conversations at once in cohorts of {self.cohort_size}, {how}"

    @property
    def live(self) -> int:
        """Conversations that are live at once: at most where the config says so, else about so many."""
        return self._fixed or self._live

    def next_size(self, left: int | None) -> int:
        """The most conversations of the next cohort. left: attempts left to start; None for any number."""
        return self.cohort_size if left is None or left > self.live else self._last_cohort_size

    def admits(
        self,
        size: int,
        *,
        step: int,
        outstanding: int,
        live: int,
        kv_tokens: float,
        left: int | None = None,
        reserved: int = 0,
    ) -> bool:
        """Whether a cohort of that size may start now.

        outstanding: requests in the engine. live: conversations; kv_tokens: their KV cache. left: attempts
        that are left to start, the cohort's included; None for any number. reserved: places of conversations
        that will join cohorts in flight.
        """
        if self._fixed:
            # While the batch is full, wait for more rows to make a whole cohort.
            whole = size == self.cohort_size or live < self._figures.max_num_seqs
            return live + reserved + size <= self._fixed and whole
        if not live:
            return True
        if left is not None and left <= self.live and self._fits_at_longest(live + left):
            return True
        if outstanding >= self._max_outstanding:
            return False
        return self._overcommitted or (step >= self._next_start and kv_tokens <= self._kv_budget)

    @property
    def _next_start(self) -> float:
        """The step from which the cache has room for another cohort, by the present estimates."""
        return self._last_start + self._last_size * self._steps_per_start

    def start(self, size: int, *, step: int) -> None:
        """A cohort of that size has started."""
        # Steps are whole, so a start less than a step late is on time.
        self._last_start = min(float(step), max(self._next_start, step - 1.0))
        self._last_size = size

    def learn(self, *, tokens: float, steps: float, cohort_steps: float | None) -> None:
        """A cohort has ended a turn: means over its conversations, and the steps of the slowest.

        cohort_steps: None for a cohort of fewer conversations than others, which says nothing of their waits.
        """
        self._cohorts_seen = min(self._cohorts_seen + 1, _MEMORY)
        old, weight = self.traffic, 1 / self._cohorts_seen
        if cohort_steps is None:
            cohort_steps = steps * old.cohort_steps / old.steps
        self.traffic = replace(
            old,
            tokens=max(1.0, old.tokens + (tokens - old.tokens) * weight),
            steps=max(1.0, old.steps + (steps - old.steps) * weight),
            cohort_steps=max(1.0, old.cohort_steps + (cohort_steps - old.cohort_steps) * weight),
        )
        self._adapt()

    def refresh_after(self, *, outstanding: int, kv_tokens: float) -> float:
        """Steps after which a waiting conversation's cache is to be refreshed, so that it is not evicted.

        The engine evicts the least recently used cache, of waiting and of ended conversations alike. Since
        then it has cached as many tokens a step as requests are running.
        """
        if self._overcommitted:
            return math.inf
        free = self._figures.kv_cache_tokens - kv_tokens
        return max(_MIN_REFRESH_STEPS, _REFRESH_MARGIN * free / max(1, outstanding))

    def _adapt(self) -> None:
        """Set the limits that follow from the traffic."""
        traffic, slots, cache = self.traffic, self._figures.max_num_seqs, self._figures.kv_cache_tokens
        self._kv_budget = _LIVE_SHARE * cache
        within = min(float(slots), self._kv_budget * traffic.running_steps / traffic.live_kv)
        beyond = min(float(slots), cache * traffic.running_steps / traffic.running_kv)
        prefilled_again = traffic.turns - 1 + _RECOMPUTED
        self._overcommitted = within < slots and (
            _step_cost(beyond * (1 + prefilled_again)) / beyond < _step_cost(within) / within
        )
        live_per_running = traffic.live_steps / traffic.running_steps
        running, self._max_outstanding = within, float(slots)
        if self._overcommitted:
            running = self._max_outstanding = min(float(slots), beyond * _OVERCOMMIT)
        elif within == slots and _SPARE * slots * live_per_running * traffic.longest <= cache:
            running = self._max_outstanding = _SPARE * slots
        self._live = max(self.cohort_size, round(running * live_per_running))
        fits = self._fits_at_longest(self._live)
        self._steps_per_start = 0.0 if fits else traffic.live_kv / self._kv_budget

    def _fits_at_longest(self, conversations: int) -> bool:
        """Whether the cache holds so many conversations at their longest."""
        return conversations * self.traffic.longest <= self._figures.kv_cache_tokens


def _step_cost(tokens: float) -> float:
    """Time of a step that prefills and decodes so many tokens, in units of one token's."""
    return max(float(_FREE_TOKENS), tokens)
