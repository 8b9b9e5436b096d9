"""The cost of a build, and the assumptions that are reported with it."""

from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import parse_as
from magpie_ray.planning.forecast import CostInputs, Forecast, forecast
from magpie_ray.planning.gpus import find_gpu
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.resolve import resolve_build
from tests.model.test_size import LLAMA_8B, LLAMA_70B, folder
from tests.planning.test_estimate import SAMPLE
from tests.support.builds import config_of
from tests.support.sources import write_source


@pytest.fixture
def build_spec() -> BuildSpec:
    return resolve_build(config_of(num_rows=1000))


def of(build_spec: BuildSpec, *, device: str = "cuda", **inputs: Any) -> Forecast:
    return forecast(build_spec, CostInputs(**inputs), rows=1000, files=16, num_actors=2, device=device)


def with_model(build_spec: BuildSpec, path: Path, config: dict[str, Any]) -> BuildSpec:
    """The same, as if it were for this model."""
    fields = {name: getattr(build_spec, name) for name in build_spec.__dataclass_fields__}
    return BuildSpec(**(fields | {"model": folder(path, config)}))


def test_without_anything_given_nothing_is_told(build_spec: BuildSpec) -> None:
    assert of(build_spec) == Forecast()


def test_a_gpu_alone_gives_a_range_and_says_what_it_rests_on(build_spec: BuildSpec, tmp_path: Path) -> None:
    found = of(with_model(build_spec, tmp_path, LLAMA_8B), gpu=find_gpu("H100-80GB"), price_per_gpu_hour=2.5)
    assert found.fit is not None
    assert found.estimate is not None
    assert found.estimate.tokens.low < found.estimate.tokens.high
    assert found.estimate.cost is not None
    said = " ".join(found.assumptions)
    for what in ("data sheet", "config.json", "max_tokens", "roofline", "206 GPU-hours", "no download"):
        assert what in said
    assert not found.warnings


def test_a_model_that_does_not_fit_is_warned_of_and_not_estimated(
    build_spec: BuildSpec, tmp_path: Path
) -> None:
    found = of(with_model(build_spec, tmp_path, LLAMA_70B), gpu=find_gpu("L40S"))
    [warning] = found.warnings
    assert "does not fit: 141.1 GB of weights on each of 1 x L40S" in warning
    assert "raise engine.tensor_parallel_size" in warning
    assert found.estimate is None


def test_a_cache_too_small_for_the_context_is_warned_of(build_spec: BuildSpec, tmp_path: Path) -> None:
    [warning] = of(with_model(build_spec, tmp_path, LLAMA_8B), gpu=find_gpu("L4")).warnings
    assert "less than one sequence may have: lower engine.max_model_len" in warning


def test_a_stated_speed_stands_in_for_the_data_sheet(build_spec: BuildSpec) -> None:
    found = of(build_spec, tokens_per_second=1000.0)
    assert found.estimate is not None
    assert found.estimate.basis == "--tokens-per-second"
    assert not any("roofline" in text for text in found.assumptions)


def test_a_sample_counts_more_than_anything_else(build_spec: BuildSpec) -> None:
    found = of(build_spec, sample=SAMPLE, tokens_per_second=1.0, gpu=find_gpu("H200"), price_per_gpu_hour=1.0)
    assert found.estimate is not None
    assert found.estimate.tokens.low == found.estimate.tokens.high == 50_000
    assert found.estimate.cost is not None


def test_a_price_without_gpus_is_warned_of(build_spec: BuildSpec) -> None:
    [warning] = of(build_spec, device="cpu", tokens_per_second=10.0, price_per_gpu_hour=1.0).warnings
    assert "--price-per-gpu-hour has no effect" in warning


def test_several_answers_to_a_row_are_sequences_of_their_own(tmp_path: Path) -> None:
    """As many run at once as of one answer a row."""
    source = write_source(tmp_path / "rows.jsonl", [{"instruction": "Why?"}])
    sampling = {"assistant": {"temperature": 0.8, "max_tokens": 1900}}
    batches = []
    for n in (1, 5):
        answers = parse_as(
            AnswerConfig,
            {
                "source": {"path": str(source)},
                "n": n,
                "sampling": sampling,
                "engine": {"max_model_len": 2048},
                "output": {"path": f"memory://{tmp_path}/{n}"},
            },
        )
        found = of(with_model(resolve_build(answers), tmp_path, LLAMA_8B), gpu=find_gpu("H100-80GB"))
        assert found.fit is not None
        batches.append(found.fit.sequences)
    assert batches[0] == batches[1]
