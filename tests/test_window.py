"""Sizes of cohorts and of the live window."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.types import EngineFigures
from magpie_ray.window import Window, choose_window

AUTO = {"cohort_size": None, "cohorts_in_flight": None}


def figures(slots: int, kv_cache_tokens: int) -> EngineFigures:
    return EngineFigures(max_num_seqs=slots, kv_cache_tokens=kv_cache_tokens, max_model_len=8192)


@settings(max_examples=50, derandomize=True, deadline=None)
@given(slots=st.integers(1, 4096), kv=st.integers(0, 10**7), tokens=st.integers(1, 10_000))
def test_auto_cohorts_are_neither_too_small_nor_alone(slots: int, kv: int, tokens: int) -> None:
    window = choose_window(figures(slots, kv), **AUTO, tokens_per_conversation=tokens)
    assert 16 <= window.cohort_size <= 64
    assert window.cohorts_in_flight >= 2
    assert window.live <= max(3 * slots, 32)


@pytest.mark.parametrize(("slots", "size", "live"), [(64, 16, 192), (512, 64, 1536), (256, 32, 768)])
def test_with_memory_enough_three_conversations_a_slot_are_alive(slots: int, size: int, live: int) -> None:
    window = choose_window(figures(slots, 10**9), **AUTO, tokens_per_conversation=1000)
    assert (window.cohort_size, window.live) == (size, live)


def test_a_small_cache_makes_the_window_small_and_its_cohorts_with_it() -> None:
    window = choose_window(figures(256, 80_000), **AUTO, tokens_per_conversation=1000)
    assert window == Window(cohort_size=16, cohorts_in_flight=5)


def test_what_the_config_says_is_taken() -> None:
    window = choose_window(
        figures(256, 1000), cohort_size=3, cohorts_in_flight=1, tokens_per_conversation=1000
    )
    assert window == Window(cohort_size=3, cohorts_in_flight=1)
    assert window.live == 3
