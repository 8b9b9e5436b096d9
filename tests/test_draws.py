"""Draws from a seed: prompts, sampling settings, seeds of engines and requests."""

import hashlib
import struct
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray import draws
from magpie_ray.types import SystemPrompt

some = settings(max_examples=60, derandomize=True, deadline=None)


def test_system_prompts_follow_their_weights() -> None:
    weights = {"a": 0.7, "b": 0.2, "c": 0.1}
    prompts = [SystemPrompt(text=key, key=key, weight=weight) for key, weight in weights.items()]
    drawn = Counter(draws.system_prompt_of(row, seed=3, prompts=prompts).text for row in range(10_000))
    for key, weight in weights.items():
        assert drawn[key] / 10_000 == pytest.approx(weight, abs=0.015)


@some
@given(seed=st.integers(0, 2**31 - 1), row_id=st.integers(0, 2**40))
def test_a_system_prompt_depends_on_seed_and_row_alone(seed: int, row_id: int) -> None:
    prompts = [SystemPrompt(text=text, weight=1 / 3) for text in "abc"]
    first = draws.system_prompt_of(row_id, seed=seed, prompts=prompts)
    assert first in prompts
    assert draws.system_prompt_of(row_id, seed=seed, prompts=list(prompts)) == first


def test_system_prompts_of_two_seeds_differ_and_no_prompts_give_none() -> None:
    prompts = [SystemPrompt(text=text, weight=0.5) for text in "ab"]
    drawn = [
        [draws.system_prompt_of(row, seed=seed, prompts=prompts) for row in range(64)] for seed in (0, 1)
    ]
    assert drawn[0] != drawn[1]
    assert draws.system_prompt_of(0, seed=0, prompts=()) is None


def test_weights_that_sum_to_less_than_one_by_rounding_still_give_a_prompt() -> None:
    prompts = [SystemPrompt(text="a", weight=0.0), SystemPrompt(text="b", weight=1e-300)]
    assert draws.system_prompt_of(0, seed=0, prompts=prompts) == prompts[-1]


@some
@given(weights=st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=50), row_id=st.integers(0, 2**40))
def test_a_draw_by_bounds_made_once_is_the_draw_that_walks_through_the_weights(
    weights: list[float], row_id: int
) -> None:
    """Builds that exist were drawn so: the first prompt whose running sum is above the draw."""
    whole = sum(weights)
    prompts = [SystemPrompt(text=str(n), weight=weight / whole) for n, weight in enumerate(weights)]
    packed = struct.pack("<3Q", 7, row_id, 1)
    share = int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") / 2**64
    sums = accumulate(prompt.weight for prompt in prompts)
    walked = next((n for n, bound in enumerate(sums) if share < bound), len(prompts) - 1)
    bounds = draws.bounds_of(prompt.weight for prompt in prompts)
    for given_bounds in (None, bounds):
        drawn = draws.system_prompt_of(row_id, seed=7, prompts=prompts, bounds=given_bounds)
        assert drawn == prompts[walked]


@some
@given(seed=st.integers(0, 2**32 - 1), row_id=st.integers(0, 2**40), inputs=st.integers(1, 10**12))
def test_an_input_is_one_of_those_that_there_are_and_depends_on_seed_and_row_alone(
    seed: int, row_id: int, inputs: int
) -> None:
    drawn = draws.input_of(row_id, seed=seed, inputs=inputs)
    assert 0 <= drawn < inputs
    assert drawn == draws.input_of(row_id, seed=seed, inputs=inputs)
    assert 0 <= draws.input_share_of(row_id, seed=seed) < 1


def test_inputs_are_drawn_alike_often() -> None:
    drawn = Counter(draws.input_of(row, seed=3, inputs=10) for row in range(20_000))
    assert len(drawn) == 10
    assert all(abs(times - 2_000) < 200 for times in drawn.values())


@some
@given(
    seed=st.integers(0, 2**31 - 1),
    starts=st.sets(
        st.tuples(
            st.integers(1, draws.MAX_RUNS - 1),
            st.integers(0, draws.MAX_ENGINE_STARTS - 1),
        ),
        max_size=200,
    ),
)
def test_engine_seeds_are_unique_over_runs_and_starts_and_fit_32_bits(
    seed: int, starts: set[tuple[int, int]]
) -> None:
    seeds = {draws.engine_seed(seed=seed, run=run, start=start) for run, start in starts}
    assert len(seeds) == len(starts)
    assert all(0 <= value < 2**32 for value in seeds)


def test_runs_and_starts_do_not_run_into_each_other() -> None:
    corners = [0, 1, 2, 3, draws.MAX_ENGINE_STARTS - 2, draws.MAX_ENGINE_STARTS - 1]
    seeds = {draws.engine_seed(seed=9, run=run, start=start) for run in range(1, 6) for start in corners}
    assert len(seeds) == 5 * len(corners)


@pytest.mark.parametrize(
    ("run", "start"), [(0, 0), (draws.MAX_RUNS, 0), (1, draws.MAX_ENGINE_STARTS), (1, -1)]
)
def test_engine_seeds_that_would_repeat_are_refused(run: int, start: int) -> None:
    with pytest.raises(ValueError, match="engine seeds would repeat"):
        draws.engine_seed(seed=0, run=run, start=start)


def test_builds_of_two_seeds_have_other_engine_seeds() -> None:
    assert draws.engine_seed(seed=0, run=1, start=0) != draws.engine_seed(seed=1, run=1, start=0)


def test_request_seeds_differ_by_each_of_their_parts_and_fit_63_bits() -> None:
    seeds = {
        draws.request_seed(row, seed=seed, attempt=attempt, message=message)
        for row in range(10)
        for seed in range(3)
        for attempt in (1, 2)
        for message in range(4)
    }
    assert len(seeds) == 10 * 3 * 2 * 4
    assert all(0 <= value < 2**63 for value in seeds)
    again = draws.request_seed(7, seed=1, attempt=2, message=3)
    assert again == draws.request_seed(7, seed=1, attempt=2, message=3)


@some
@given(seed=st.integers(0, 2**32 - 1), row_id=st.integers(0, 10**12), other=st.integers(1, 10**6))
def test_a_rows_sampling_setting_depends_on_seed_and_row_alone(seed: int, row_id: int, other: int) -> None:
    weights = [0.5, 0.3, 0.2]
    chosen = draws.sampling_of(row_id, seed=seed, weights=weights)
    assert chosen == draws.sampling_of(row_id, seed=seed, weights=list(weights))
    assert 0 <= chosen < 3
    assert draws.sampling_of(row_id, seed=seed, weights=[1.0]) == 0


def test_sampling_settings_come_by_weight_and_apart_from_system_prompts() -> None:
    weights = [0.6, 0.4]
    prompts = tuple(SystemPrompt(text=str(w), weight=w) for w in weights)
    rows = range(20_000)
    settings = [draws.sampling_of(row, seed=3, weights=weights) for row in rows]
    firsts = [draws.system_prompt_of(row, seed=3, prompts=prompts) == prompts[0] for row in rows]
    assert sum(settings) / len(rows) == pytest.approx(0.4, abs=0.02)
    together = sum(first for first, setting in zip(firsts, settings, strict=True) if setting == 0)
    assert together / len(rows) == pytest.approx(0.36, abs=0.02)
