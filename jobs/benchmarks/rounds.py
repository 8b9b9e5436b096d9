"""The cost of turn-synchronous rounds: the real scheduler over an engine in virtual time, on two GPUs.

Three systems are compared: no barrier (every conversation goes on by itself, in the best window there is),
the rounds of a worker, and plain lockstep over batches. A second table shows the effect of each choice of the
window.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from jobs.benchmarks.cards import H200, L4, Card
from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.simulation import Run, draw_lengths, run_lockstep, run_rounds
from magpie_ray.generation.admission import AdmissionWindow

ROWS_PER_SLOT = 40
TURNS = (1, 3, 5)
# A worker's expectation from max_tokens 512 and 1024, before any turn has ended.
EXPECTED_TURN_TOKENS = 430
# Lockstep needs fewer rows: each batch is like the others.
_LOCKSTEP_BATCHES = 4
_CHOICE_ROWS_PER_SLOT = 8


class WellInformedWindow(AdmissionWindow):
    """A window for conversations without cohorts, which knows their mean length from the start.

    It must not learn: the first conversations to end are the short ones.
    """

    def learn(self, **_: float | None) -> None:
        """Ignore the lengths seen."""


def no_barrier(card: Card, *, turns: int, rows: int) -> Run:
    """Every conversation goes on as soon as its message is there."""
    sample = draw_lengths(1000, turns)
    mean = sum(map(sum, sample)) / (len(sample) * turns) + 2 * 5
    window = WellInformedWindow(card.figures, cohort_size=1, turns=turns, tokens_per_turn=mean)
    return run_rounds(card, turns=turns, rows=rows, window=window)


def our_rounds(
    card: Card, *, turns: int, rows: int, cohort_size: int | None = None, refresh: bool = True
) -> Run:
    """A worker's rounds, in cohorts."""
    window = AdmissionWindow(
        card.figures, cohort_size=cohort_size, turns=turns, tokens_per_turn=EXPECTED_TURN_TOKENS
    )
    return run_rounds(card, turns=turns, rows=rows, window=window, refresh=refresh)


def fixed_rounds(card: Card, *, turns: int, rows: int, live: float) -> Run:
    """Cohorts of 16, with `live` conversations whatever the cache holds."""
    window = AdmissionWindow(card.figures, cohort_size=16, cohorts_in_flight=int(live) // 16)
    return run_rounds(card, turns=turns, rows=rows, window=window, refresh=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    """One simulation, for another process."""

    system: str
    what: Callable[..., Run]
    card: Card
    turns: int
    rows: int
    options: tuple[tuple[str, float], ...] = ()

    def __call__(self) -> Run:
        return self.what(self.card, turns=self.turns, rows=self.rows, **dict(self.options))


def run() -> Result:
    """Two or three minutes on two cores."""
    comparison = [task for card in (H200, L4) for turns in TURNS for task in _compared(card, turns)]
    choices = _choices()
    # The longest first, so that both cores end at about the same time.
    tasks = sorted([*comparison, *choices], key=lambda task: -task.rows * task.turns**2)
    with ProcessPoolExecutor(2) as pool:
        runs = dict(zip(tasks, pool.map(_call, tasks), strict=True))
    free = {(t.card, t.turns): runs[t] for t in comparison if t.what is no_barrier}
    ours = {(t.card, t.turns): runs[t] for t in comparison if t.what is our_rounds}
    return Result(
        name="rounds",
        tables=[
            Table(
                title="an 8B model in virtual time; s and us are simulated",
                rows=[_row(task, runs[task], free[task.card, task.turns]) for task in comparison],
            ),
            Table(
                title=f"what each choice is worth ({_CHOICE_ROWS_PER_SLOT} rows a slot)",
                rows=[_row(task, runs[task], runs[_first_like(task, choices)]) for task in choices],
            ),
        ],
        claims=[
            Claim(
                what=f"{card.name}, {turns} turn{'s' * (turns > 1)}: simulated time against no barrier",
                value=ours[card, turns].seconds_per_token / free[card, turns].seconds_per_token,
                must_be="at most",
                bound=1.02,
            )
            for card in (H200, L4)
            for turns in TURNS
        ],
        notes=[
            "No GPU was at hand: costs are a roofline over published figures (jobs/benchmarks/cards.py).",
            "Times a token are those of the body, until the last row has begun; the tail is apart.",
            f"L4: max_num_batched_tokens is {L4.max_num_batched_tokens} for all systems; the second table "
            "says what vLLM's own 8192 costs.",
        ],
    )


def _call(task: _Task) -> Run:
    return task()


def _compared(card: Card, turns: int) -> list[_Task]:
    rows = ROWS_PER_SLOT * card.max_num_seqs
    few = _LOCKSTEP_BATCHES * card.max_num_seqs
    return [
        _Task(system="no barrier", what=no_barrier, card=card, turns=turns, rows=rows),
        _Task(system="rounds", what=our_rounds, card=card, turns=turns, rows=rows),
        _Task(system="plain lockstep", what=run_lockstep, card=card, turns=turns, rows=few),
    ]


def _choices() -> list[_Task]:
    """Variants with three turns. Each GPU's variants follow the rounds that they are compared with."""
    large = replace(L4, max_num_batched_tokens=8192)
    fp8 = replace(H200, kv_cache_tokens=2 * H200.kv_cache_tokens, cache_bytes=H200.cache_bytes // 2)
    tasks = []
    for card in (H200, L4):
        rows = _CHOICE_ROWS_PER_SLOT * card.max_num_seqs
        more: list[tuple[str, Callable[..., Run], Card, dict[str, float]]] = [
            ("rounds", our_rounds, card, {}),
            ("cohorts of 32", our_rounds, card, {"cohort_size": 32}),
            ("cohorts of 64", our_rounds, card, {"cohort_size": 64}),
            ("1.5 alive a slot, whatever is cached", fixed_rounds, card, {"live": 1.5 * card.max_num_seqs}),
            ("3 alive a slot, whatever is cached", fixed_rounds, card, {"live": 3 * card.max_num_seqs}),
        ]
        if card is H200:
            more.append(("waiting prefixes not refreshed", our_rounds, card, {"refresh": False}))
            more.append(("kv_cache_dtype fp8", our_rounds, fp8, {}))
        else:
            more.append(("max_num_batched_tokens 8192", our_rounds, large, {}))
        tasks += [
            _Task(system=system, what=what, card=one, turns=3, rows=rows, options=tuple(options.items()))
            for system, what, one, options in more
        ]
    return tasks


def _first_like(task: _Task, tasks: list[_Task]) -> _Task:
    return next(t for t in tasks if t.card.name == task.card.name and t.system == "rounds")


def _row(task: _Task, run: Run, reference: Run) -> dict[str, Cell]:
    return {
        "card": task.card.name,
        "turns": task.turns,
        "system": task.system,
        "rows": run.rows,
        "engine_steps": run.stats.steps,
        "body_s": run.body,
        "tail_s": run.tail,
        "us_a_token": run.seconds_per_token * 1e6,
        "ratio": run.seconds_per_token / reference.seconds_per_token,
        "batch_filled": run.occupancy,
        "prefix_hits": run.hit_rate,
        "read_again_a_token": run.read_again,
        "preemptions": run.stats.preemptions,
    }
