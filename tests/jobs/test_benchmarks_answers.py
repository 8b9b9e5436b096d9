"""The noise-free figures of `jobs/benchmark.py answers`, on a quarter of an H200 and on a card of 24 GB."""

from dataclasses import replace

import pytest

from jobs.benchmarks.cards import H200, L4, Card
from jobs.benchmarks.simulated_answers import DOCUMENTS, INSTRUCTIONS, bare_loop, draw_rows, our_rounds

QUARTER = replace(H200, max_num_seqs=256, kv_cache_tokens=215_000)


@pytest.mark.parametrize("median", [INSTRUCTIONS, DOCUMENTS])
@pytest.mark.parametrize("card", [QUARTER, L4], ids=lambda card: card.name)
def test_answers_take_about_the_time_of_a_bare_loop_and_find_their_prompts(card: Card, median: int) -> None:
    rows = draw_rows(8 * card.max_num_seqs, 5, median=median)
    bare, ours = bare_loop(card, rows), our_rounds(card, rows)
    assert ours.stats.generated_tokens == bare.stats.generated_tokens == sum(rows.answers)
    assert ours.seconds <= 1.01 * bare.seconds
    # A small cache evicts prompts before all answers to their rows have begun, whoever asks.
    assert ours.found >= min(0.99 * rows.in_whole_blocks, 0.99 * bare.found)
    assert ours.found <= rows.in_whole_blocks


def test_the_batch_stays_full_until_the_last_answer_begins() -> None:
    rows = draw_rows(512, 5, median=INSTRUCTIONS)
    roomy = replace(QUARTER, kv_cache_tokens=10**6)
    assert our_rounds(roomy, rows).body_filled > 0.999
