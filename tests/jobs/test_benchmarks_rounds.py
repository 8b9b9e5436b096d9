"""The noise-free figures of `jobs/benchmark.py rounds`, on a quarter of an H200 and on a card of 24 GB."""

from dataclasses import replace

import pytest

from jobs.benchmarks.cards import H200, L4, Card
from jobs.benchmarks.rounds import no_barrier, our_rounds
from jobs.benchmarks.simulation import draw_lengths, run_lockstep

# So small a batch is at the edge of what the weights' time hides, where waiting costs the most.
QUARTER = replace(H200, max_num_seqs=256, kv_cache_tokens=215_000)


@pytest.mark.parametrize(
    ("card", "turns", "rows", "at_most", "lockstep_at_least"),
    [
        (QUARTER, 1, 2560, 1.002, 1.55),
        (QUARTER, 3, 2560, 1.06, 1.6),
        (L4, 1, 2560, 1.01, 1.45),
        (L4, 3, 1024, 1.03, 1.2),
    ],
)
def test_rounds_take_about_the_time_of_no_barrier_and_lockstep_far_more(
    card: Card, turns: int, rows: int, at_most: float, lockstep_at_least: float
) -> None:
    free = no_barrier(card, turns=turns, rows=rows)
    ours = our_rounds(card, turns=turns, rows=rows)
    lockstep = run_lockstep(card, turns=turns, rows=2 * card.max_num_seqs)
    assert ours.seconds_per_token / free.seconds_per_token <= at_most
    assert lockstep.seconds_per_token / free.seconds_per_token >= lockstep_at_least
    assert ours.stats.generated_tokens == sum(map(sum, draw_lengths(rows, turns)))


def test_what_waits_stays_in_the_cache_because_it_is_refreshed() -> None:
    kept = our_rounds(QUARTER, turns=3, rows=2560)
    lost = our_rounds(QUARTER, turns=3, rows=2560, refresh=False)
    assert kept.hit_rate > 0.98
    assert lost.hit_rate < 0.85
    assert kept.stats.preemptions == 0


def test_prompts_read_all_in_one_step_cost_a_small_card_more() -> None:
    at_once = replace(L4, max_num_batched_tokens=8192)
    chunked, whole = (our_rounds(card, turns=3, rows=1024) for card in (L4, at_once))
    assert whole.seconds_per_token > 1.1 * chunked.seconds_per_token
