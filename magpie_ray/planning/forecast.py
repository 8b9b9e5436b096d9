"""The cost of a build by the best figures there are: a sample, a stated speed, or a GPU's data sheet.

Invariant: every assumption is reported, each in a sentence of its own.
"""

from dataclasses import dataclass, replace
from math import ceil

from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.sampling import EXPECTED_FILL
from magpie_ray.config.score import ScoreConfig
from magpie_ray.config.scoring import EmbedColumn
from magpie_ray.model.size import ModelSize, read_model_size
from magpie_ray.planning import estimate
from magpie_ray.planning.estimate import Estimate, Fit, Range, Sample, Workload
from magpie_ray.planning.gpus import Gpu
from magpie_ray.preflight.build_spec import BuildSpec

_ROOFLINE = (
    f"tokens/s: {estimate.SHARE.low:.0%} to {estimate.SHARE.high:.0%} of a roofline over the data sheet; "
    "nothing was measured on such a GPU. --sample measures"
)
_PAPER = (
    "for comparison: the paper's 3M rows of an 8B model took 206 GPU-hours on A100s with the software of 2024"
)
_START = "an engine starts in one to three minutes plus the time to read its weights from a disk; no download"
_WRITING = (
    f"rows use {estimate.FILL.low:.0%} to {estimate.FILL.high:.0%} of max_tokens (the paper's "
    f"{EXPECTED_FILL:.0%}) and every attempt is accepted; a file takes {estimate.BYTES_PER_TOKEN.low:g} to "
    f"{estimate.BYTES_PER_TOKEN.high:g} bytes a token"
)
_BYTES_OF_SCORES, _BYTES_OF_A_NUMBER = 30.0, 4.0  # of a row without vectors; of a number in a vector


@dataclass(frozen=True, kw_only=True, slots=True)
class CostInputs:
    """Figures from the user. tokens_per_second: of one engine. price_per_gpu_hour: in any currency."""

    gpu: Gpu | None = None
    tokens_per_second: float | None = None
    price_per_gpu_hour: float | None = None
    sample: Sample | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """The cost of a build. A part is None where its inputs are missing."""

    size: ModelSize | None = None
    fit: Fit | None = None
    estimate: Estimate | None = None
    assumptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def forecast(
    build_spec: BuildSpec, inputs: CostInputs, *, rows: int, files: int, num_actors: int, device: str
) -> Forecast:
    """The cost of the pending rows and files on `num_actors` actors.

    ModelError when the model's size can't be told.
    """
    config, gpu = build_spec.config, inputs.gpu
    gpus = config.engine.tensor_parallel_size * config.engine.pipeline_parallel_size
    size = fit = None
    assumptions, warnings = list[str](), list[str]()
    if gpu:
        size = _size(build_spec)
        fit = _fit(build_spec, gpu, size)
        assumptions += [
            f"{gpu.name} by its data sheet: {gpu.memory / 1e9:g} GB, {gpu.bandwidth / 1e9:,.0f} GB/s; 1 GB "
            "beside weights and cache for the engine itself",
            f"the model's parameters: {size.source}; every layer keeps the whole context in its cache",
        ]
        if not fit.fits:
            warnings.append(_too_large(fit))
    on_gpu = inputs.sample.device == "cuda" if inputs.sample else gpu is not None or device == "cuda"
    workload = Workload(
        rows=rows,
        files=files,
        num_actors=num_actors,
        gpus_per_actor=gpus if on_gpu else 0,
        price_per_gpu_hour=inputs.price_per_gpu_hour,
    )
    cost, assumed = _cost(build_spec, inputs, workload, fit)
    assumptions += assumed
    if cost and gpu and device == "cpu" and not inputs.sample:
        assumptions.append(f"the estimate is for {gpu.name}, although engine.device is cpu")
    if inputs.price_per_gpu_hour is not None and cost and cost.cost is None:
        warnings.append("--price-per-gpu-hour has no effect: no GPU is used (engine.device)")
    return Forecast(
        size=size, fit=fit, estimate=cost, assumptions=tuple(assumptions), warnings=tuple(warnings)
    )


def _cost(
    build_spec: BuildSpec, inputs: CostInputs, workload: Workload, fit: Fit | None
) -> tuple[Estimate | None, list[str]]:
    """What the workload takes, as far as anything says it, and a sentence for each assumption."""
    config, sample = build_spec.config, inputs.sample
    if sample:
        others = workload.num_actors != sample.engines
        engines = f"each of {workload.num_actors} engines starts and runs as fast as the {sample.engines}"
        return estimate.from_sample(sample, workload), [f"{engines} of the sample"] if others else []
    speed, basis = fit.tokens_per_second if fit else None, "the data sheet"
    if inputs.tokens_per_second:
        speed, basis = Range.exactly(inputs.tokens_per_second), "--tokens-per-second"
    if not speed:
        return None, []
    weight_bytes = fit.weight_bytes if fit else 0.0
    measured = [] if inputs.tokens_per_second else [_ROOFLINE]
    if isinstance(config, ScoreConfig):
        bytes_per_row = _BYTES_OF_SCORES + _BYTES_OF_A_NUMBER * _vector_numbers(config, build_spec)
        reading = estimate.from_reading(
            speed,
            workload,
            tokens_per_row=build_spec.read_tokens,
            bytes_per_row=bytes_per_row,
            weight_bytes=weight_bytes,
            basis=basis,
        )
        return reading, [
            _read(config, build_spec),
            f"a row takes {bytes_per_row:,.0f} bytes",
            _START,
            *measured,
        ]
    writing = estimate.from_speed(
        speed,
        workload,
        max_tokens_per_row=config.max_tokens_per_row,
        weight_bytes=weight_bytes,
        basis=basis,
    )
    return writing, [_WRITING, _START, *measured, *([_PAPER] if measured else [])]


def _vector_numbers(config: ScoreConfig, build_spec: BuildSpec) -> int:
    """Numbers in all vectors of a row."""
    vectors = [column for column in config.columns.values() if isinstance(column, EmbedColumn)]
    return sum(column.dimensions or build_spec.vector_size or 0 for column in vectors)


def _read(config: ScoreConfig, build_spec: BuildSpec) -> str:
    """How many tokens of a row are read, and why not more."""
    found = f"{build_spec.read_tokens:,.0f} tokens are read for a row, by the first rows"
    return found if config.kind == "embed" else f"{found}: what their prompts share stays in the prefix cache"


def _size(build_spec: BuildSpec) -> ModelSize:
    engine = build_spec.config.engine
    return read_model_size(
        build_spec.model,
        dtype=engine.dtype,
        quantization=engine.quantization,
        cache_dtype=str(engine.extra.get("kv_cache_dtype", "auto")),
    )


def _fit(build_spec: BuildSpec, gpu: Gpu, size: ModelSize) -> Fit:
    config, engine = build_spec.config, build_spec.config.engine
    if build_spec.first_input:
        prompt_tokens = len(build_spec.first_input.ids)
    else:
        texts: list[str | None] = [prompt.text for prompt in build_spec.prompts]
        prompt_tokens = max(len(build_spec.form.prefix(text)) for text in texts or [None])
    # Several answers to a row are sequences of their own.
    written = config.max_tokens_per_row // (config.n if isinstance(config, AnswerConfig) else 1)
    fit = estimate.fit_model(
        size,
        gpu,
        engine,
        row_tokens=prompt_tokens + ceil(written * EXPECTED_FILL),
        longest=engine.max_model_len or size.max_tokens or prompt_tokens + written,
    )
    if isinstance(config, ScoreConfig) and fit.fits:
        return replace(fit, tokens_per_second=estimate.reading_speed(size, gpu, engine))
    return fit


def _too_large(fit: Fit) -> str:
    weights, usable = fit.weight_bytes / 1e9, fit.usable_bytes / 1e9
    if fit.cache_tokens:
        return (
            f"{fit.gpus} x {fit.gpu} holds {weights:,.1f} GB of weights and a KV cache of "
            f"{fit.cache_tokens:,} tokens, less than one sequence may have: lower engine.max_model_len, "
            "raise engine.tensor_parallel_size, or use a larger GPU"
        )
    return (
        f"the model does not fit: {weights:,.1f} GB of weights on each of {fit.gpus} x {fit.gpu}, of which "
        f"{usable:,.1f} GB are used (engine.gpu_memory_utilization): raise engine.tensor_parallel_size, set "
        "engine.quantization, or use a larger GPU"
    )
