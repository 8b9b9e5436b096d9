"""The arithmetic of a build's cost."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.sections import EngineConfig
from magpie_ray.model.size import ModelSize
from magpie_ray.planning.estimate import (
    Estimate,
    Fit,
    Range,
    Sample,
    Workload,
    fit_model,
    from_sample,
    from_speed,
)
from magpie_ray.planning.gpus import GPUS, find_gpu
from tests.support.paths import ROOT

SPEED_PAGE = ROOT / "docs/speed.md"

LLAMA_8B = ModelSize(
    parameters=8.03e9,
    active_parameters=8.03e9,
    parameter_bytes=2,
    layers=32,
    kv_heads=8,
    head_dim=128,
    latent=0,
    cache_bytes=2,
    max_tokens=8192,
    source="here",
)
SAMPLE = Sample(
    engines=2,
    rows=1000,
    attempts=1100,
    rejected=100,
    tokens=50_000,
    seconds=30.0,
    start_seconds=20.0,
    end_seconds=5.0,
    tokens_per_second=1000.0,
    tail_seconds=3.0,
    bytes_per_row=200.0,
    bytes_per_file=1000.0,
    whole=False,
    device="cuda",
)


def fit_of(gpu: str, size: ModelSize = LLAMA_8B, *, longest: int = 8192, **keys: Any) -> Fit:
    engine = EngineConfig(**({"gpu_memory_utilization": 0.92} | keys))
    return fit_model(size, find_gpu(gpu), engine, row_tokens=450.0, longest=longest)


def test_an_h200_holds_as_many_tokens_as_it_is_known_to() -> None:
    """An H200 has about 860,000 tokens of cache for an 8B model in bf16, of 128 KiB each."""
    found = fit_of("H200")
    assert found.cache_tokens == pytest.approx(860_000, rel=0.02)
    assert found.sequences == found.max_num_seqs == 1024


LLAMA_70B = replace(LLAMA_8B, parameters=70.6e9, active_parameters=70.6e9, layers=80)
SMOLLM2 = replace(LLAMA_8B, parameters=1.71e9, active_parameters=1.71e9, layers=24, kv_heads=32, head_dim=64)
# Model, GPU, GPUs of an engine, tokens of a conversation, tokens/s of a GPU.
PUBLISHED = {
    "Magpie-Air": (LLAMA_8B, "A100-80GB", 1, 430, 3e6 * 430 / 206 / 3600),
    "Magpie-Pro": (LLAMA_70B, "A100-80GB", 4, 478, 1e6 * 478 / 614 / 3600),
    "MLPerf on H100": (replace(LLAMA_70B, parameter_bytes=1.0), "H100-80GB", 2, 588, 84.2 * 294.45 / 8),
    "MLPerf on H200": (replace(LLAMA_70B, parameter_bytes=1.0), "H200", 1, 588, 118.5 * 294.45 / 8),
    "FinePhrase": (SMOLLM2, "H100-80GB", 1, 1100, 9200.0),
}


@pytest.mark.parametrize("run", PUBLISHED)
def test_published_runs_are_within_a_factor_of_two_of_the_estimate_and_so_says_the_table(run: str) -> None:
    size, gpu, gpus, row_tokens, published = PUBLISHED[run]
    engine = EngineConfig(tensor_parallel_size=gpus)
    found = fit_model(size, find_gpu(gpu), engine, row_tokens=row_tokens, longest=1024)
    assert found.tokens_per_second is not None
    low, high = found.tokens_per_second.low / gpus, found.tokens_per_second.high / gpus
    assert low / 2 <= published <= high * 2
    [line] = [text for text in SPEED_PAGE.read_text().splitlines() if text.startswith(f"| {run}")]
    assert f"| {published:,.0f} | {low:,.0f} to {high:,.0f} |" in line


def test_a_card_of_24_gb_has_a_batch_that_its_cache_limits() -> None:
    """With 0.9 of an A10G vLLM reported 31,232 tokens (vllm-project/vllm issue 10517)."""
    found = fit_of("A10G", gpu_memory_utilization=0.9)
    assert found.cache_tokens == pytest.approx(31_232, rel=0.15)
    assert found.sequences < found.max_num_seqs


def test_a_model_that_does_not_fit_has_no_speed() -> None:
    large = replace(LLAMA_8B, parameters=70.6e9, active_parameters=70.6e9, layers=80)
    found = fit_of("H100-80GB", large)
    assert (found.fits, found.cache_tokens, found.tokens_per_second) == (False, 0, None)
    assert fit_of("H100-80GB", large, tensor_parallel_size=4).fits


def test_a_cache_for_less_than_one_sequence_is_none() -> None:
    assert not fit_of("A10G", longest=131_072).fits
    assert fit_of("A10G", longest=8192).fits


@pytest.mark.parametrize("gpu", GPUS)
def test_more_gpus_are_never_slower(gpu: str) -> None:
    speeds = [fit_of(gpu, tensor_parallel_size=n).tokens_per_second for n in (1, 2, 4)]
    assert all(one and other and one.high <= other.high for one, other in pairwise(speeds))


def test_a_part_is_scaled_and_start_tail_and_end_are_added() -> None:
    found = from_sample(
        SAMPLE, Workload(rows=10_000, files=16, num_actors=4, gpus_per_actor=2, price_per_gpu_hour=3.0)
    )
    wall = 20 + 500_000 / 4000 + 3 + 5
    assert found.tokens == Range.exactly(500_000)
    assert found.wall_seconds == Range.exactly(wall)
    assert found.size_bytes == Range.exactly(2_016_000)
    assert found.gpu_hours is not None
    assert found.gpu_hours.low == pytest.approx(wall * 8 / 3600)
    assert found.cost is not None
    assert found.cost.low == pytest.approx(wall * 8 / 1200)


def test_a_build_that_was_made_for_trial_takes_what_it_took() -> None:
    whole = replace(SAMPLE, whole=True)
    found = from_sample(
        whole, Workload(rows=1000, files=16, num_actors=2, gpus_per_actor=0, price_per_gpu_hour=3.0)
    )
    assert found.wall_seconds == Range.exactly(55.0)
    assert (found.gpu_hours, found.cost) == (None, None)
    other = from_sample(whole, Workload(rows=1000, files=16, num_actors=8, gpus_per_actor=0))
    assert other.wall_seconds.low == pytest.approx(20 + 50_000 / 8000 + 3 + 5)


def figures(rows: int, speed: Range, actors: int = 1) -> Estimate:
    workload = Workload(rows=rows, files=16, num_actors=actors, gpus_per_actor=1, price_per_gpu_hour=2.0)
    return from_speed(speed, workload, max_tokens_per_row=1536, weight_bytes=16e9, basis="x")


@given(
    rows=st.integers(0, 10**9),
    more=st.integers(0, 10**9),
    low=st.floats(1, 1e5),
    spread=st.floats(1, 10),
    actors=st.integers(1, 1000),
)
def test_more_rows_never_take_less_and_ranges_are_in_order(
    rows: int, more: int, low: float, spread: float, actors: int
) -> None:
    speed = Range(low=low, high=low * spread)
    one, other = figures(rows, speed, actors), figures(rows + more, speed, actors)
    for name in ("tokens", "wall_seconds", "size_bytes", "gpu_hours", "cost"):
        small, large = getattr(one, name), getattr(other, name)
        assert 0 <= small.low <= small.high
        assert small.low <= large.low
        assert small.high <= large.high


def test_nothing_left_takes_nothing() -> None:
    assert figures(0, Range.exactly(100.0)).wall_seconds == Range.exactly(0.0)
    done = from_sample(
        SAMPLE, Workload(rows=0, files=16, num_actors=1, gpus_per_actor=1, price_per_gpu_hour=1.0)
    )
    assert done.wall_seconds == Range.exactly(0.0)


def test_the_paper_s_build_is_of_the_order_that_it_took() -> None:
    """3M rows of an 8B model took 206 GPU-hours on A100s, with the software of its day."""
    speed = fit_of("A100-80GB").tokens_per_second
    assert speed is not None
    hours = figures(3_000_000, speed).gpu_hours
    assert hours is not None
    assert 10 < hours.low < 206 < 2 * hours.high
