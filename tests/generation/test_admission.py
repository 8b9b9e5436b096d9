"""When a cohort may start: a full batch, a cache that holds what waits, and an even pace."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.generation.admission import COHORT_SIZE, AdmissionWindow

H200 = EngineFigures(max_num_seqs=1024, kv_cache_tokens=860_000, max_model_len=8192)
SMALL = EngineFigures(max_num_seqs=256, kv_cache_tokens=32_768, max_model_len=8192)


def admits(window: AdmissionWindow, *, size: int = COHORT_SIZE, **changes: float) -> bool:
    state = {"step": 10**6, "outstanding": 1, "live": 1, "kv_tokens": 0.0} | changes
    return window.admits(size, **state)  # type: ignore[arg-type]


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    slots=st.integers(1, 4096),
    cache=st.integers(1, 10**7),
    turns=st.floats(0.5, 20),
    tokens=st.floats(0, 10_000),
    learnt=st.lists(st.tuples(*[st.floats(0, 10_000)] * 3), max_size=5),
)
def test_whatever_is_expected_and_learnt_a_cohort_may_start_on_an_idle_engine(
    slots: int, cache: int, turns: float, tokens: float, learnt: list[tuple[float, float, float]]
) -> None:
    figures = EngineFigures(max_num_seqs=slots, kv_cache_tokens=cache, max_model_len=8192)
    window = AdmissionWindow(figures, turns=turns, tokens_per_turn=tokens)
    for added, steps, cohort_steps in learnt:
        window.learn(tokens=added, steps=steps, cohort_steps=cohort_steps)
    window.start(COHORT_SIZE, step=0)
    assert window.live >= window.cohort_size == COHORT_SIZE
    assert window.admits(1, step=0, outstanding=0, live=0, kv_tokens=0)
    assert window.refresh_after(outstanding=slots, kv_tokens=2 * cache) >= 16


def test_no_cohort_starts_while_the_batch_is_full() -> None:
    window = AdmissionWindow(H200, turns=3, tokens_per_turn=440)
    assert admits(window, outstanding=1023)
    assert not admits(window, outstanding=1024)


def test_some_wait_for_a_slot_where_the_cache_holds_them_all_at_their_longest() -> None:
    window = AdmissionWindow(H200, turns=2, tokens_per_turn=100)
    assert admits(window, outstanding=1535)
    assert not admits(window, outstanding=1536)


def test_the_last_conversations_start_at_once_where_the_cache_holds_them() -> None:
    window = AdmissionWindow(H200, turns=2, tokens_per_turn=100)
    last = window.live
    assert admits(window, outstanding=9999, live=last, left=last)
    assert not admits(window, outstanding=9999, live=last, left=last + 1)
    assert not admits(window, outstanding=9999, live=860_000 // 200 - last + 1, left=last)


def test_the_last_conversations_are_cohorts_of_their_own_unless_the_config_says_otherwise() -> None:
    window = AdmissionWindow(H200, turns=2, tokens_per_turn=100)
    assert window.next_size(window.live + 1) == COHORT_SIZE
    assert {window.next_size(left) for left in range(1, window.live + 1)} == {1}
    for said in ({"cohort_size": 16}, {"cohorts_in_flight": 3}):
        window = AdmissionWindow(H200, turns=2, tokens_per_turn=100, **said)
        assert {window.next_size(left) for left in (1, 10**6)} == {16}


def test_no_cohort_starts_while_the_cache_is_full() -> None:
    window = AdmissionWindow(H200, turns=5, tokens_per_turn=440)
    assert admits(window, kv_tokens=0.9 * 860_000)
    assert not admits(window, kv_tokens=0.93 * 860_000)


def test_conversations_that_would_outgrow_the_cache_together_start_at_an_even_pace() -> None:
    window = AdmissionWindow(H200, turns=5, tokens_per_turn=440)
    starts = []
    for step in range(10_000):
        while admits(window, step=step):
            window.start(COHORT_SIZE, step=step)
            starts.append(step)
    gaps = [b - a for a, b in pairwise(starts)]
    assert max(gaps) - min(gaps) <= 1
    # As many as end: what each holds over its life, times their number, is what the cache is to hold.
    traffic = window.traffic
    rate = COHORT_SIZE * len(gaps) / (starts[-1] - starts[0])
    assert rate * traffic.live_kv == pytest.approx(0.92 * 860_000, rel=0.02)


def test_conversations_that_fit_the_cache_at_their_longest_start_at_once() -> None:
    window = AdmissionWindow(H200, turns=1, tokens_per_turn=440)
    for _ in range(30):
        assert admits(window, step=0)
        window.start(COHORT_SIZE, step=0)


def test_a_cache_of_a_few_conversations_is_overcommitted_and_not_refreshed() -> None:
    small, large = (AdmissionWindow(figures, turns=5, tokens_per_turn=440) for figures in (SMALL, H200))
    assert admits(small, kv_tokens=10.0 * 32_768)
    assert small.refresh_after(outstanding=30, kv_tokens=0) == math.inf
    assert large.refresh_after(outstanding=400, kv_tokens=0.9 * 860_000) < 400
    assert "more than the cache holds" in str(small)
    assert "within the cache" in str(large)


def test_what_waits_is_refreshed_sooner_the_less_of_the_cache_is_free() -> None:
    window = AdmissionWindow(H200, turns=3, tokens_per_turn=440)
    nearly_full = window.refresh_after(outstanding=800, kv_tokens=0.9 * 860_000)
    half_full = window.refresh_after(outstanding=800, kv_tokens=0.5 * 860_000)
    assert nearly_full < half_full
    assert half_full * 800 < 860_000  # before as many tokens have come as there is room for


def test_a_pace_that_was_too_slow_is_forgotten_with_what_was_expected() -> None:
    window = AdmissionWindow(SMALL, turns=3, tokens_per_turn=440)
    for step in range(40):
        assert admits(window, step=step, outstanding=step)
        window.start(COHORT_SIZE, step=step)
    window.learn(tokens=50, steps=50, cohort_steps=90)
    assert "within the cache" in str(window)
    assert admits(window, step=50)


def test_what_is_learnt_replaces_what_was_expected() -> None:
    expected, learnt = (
        AdmissionWindow(H200, turns=5, tokens_per_turn=100),
        AdmissionWindow(H200, turns=5, tokens_per_turn=440),
    )
    for _ in range(8):
        learnt.learn(tokens=100, steps=100, cohort_steps=180)
    assert learnt.live == expected.live > AdmissionWindow(H200, turns=5, tokens_per_turn=440).live


def test_a_cohort_of_few_teaches_lengths_and_leaves_the_waits_in_proportion() -> None:
    window = AdmissionWindow(H200, turns=2, tokens_per_turn=100)
    for _ in range(64):
        window.learn(tokens=50, steps=40, cohort_steps=None)
    traffic = window.traffic
    assert (traffic.tokens, traffic.steps) == pytest.approx((50, 40))
    assert traffic.cohort_steps == pytest.approx(72)


def test_what_the_config_says_is_taken() -> None:
    window = AdmissionWindow(SMALL, cohort_size=3, cohorts_in_flight=2, turns=5, tokens_per_turn=440)
    assert (window.cohort_size, window.live) == (3, 6)
    assert admits(window, size=3, live=3, outstanding=999, kv_tokens=10**9)
    assert not admits(window, size=3, live=4)


def test_a_fixed_window_waits_for_whole_cohorts_only_while_the_batch_is_full() -> None:
    window = AdmissionWindow(SMALL, cohort_size=300, cohorts_in_flight=2)
    assert admits(window, size=10, live=255)
    assert not admits(window, size=10, live=256)
