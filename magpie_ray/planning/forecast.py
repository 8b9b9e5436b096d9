"""What a build will take, by whatever is known: a sample, a stated speed, or a GPU's data sheet.

What always holds: all that was assumed is said, each in a sentence.
"""

from dataclasses import dataclass, field

from magpie_ray.model.size import ModelSize, read_model_size
from magpie_ray.planning import estimate
from magpie_ray.planning.estimate import Estimate, Fit, Range, Sample
from magpie_ray.planning.gpus import Gpu
from magpie_ray.preflight.build_spec import BuildSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """What the user knows. tokens_per_second: written by one engine. price_per_gpu_hour: in any currency."""

    gpu: Gpu | None = None
    tokens_per_second: float | None = None
    price_per_gpu_hour: float | None = None
    sample: Sample | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Forecast:
    """What is known of a build's cost. None: what nothing was given for."""

    size: ModelSize | None = None
    fit: Fit | None = None
    estimate: Estimate | None = None
    assumptions: tuple[str, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())


def forecast(
    build_spec: BuildSpec, given: Given, *, rows: int, files: int, num_actors: int, device: str
) -> Forecast:
    """For what is pending, on so many actors. ModelError when the size of a model can't be told."""
    config, assumed, warnings = build_spec.config, list[str](), list[str]()
    world = config.engine.tensor_parallel_size * config.engine.pipeline_parallel_size
    size = fit = found = None
    if given.gpu:
        size = _size(build_spec)
        fit = _fit(build_spec, given.gpu, size)
        assumed += _told_of_fit(given.gpu, size)
        if not fit.fits:
            warnings.append(_too_large(fit))
    on_gpu = given.sample.device == "cuda" if given.sample else device == "cuda" or given.gpu is not None
    gpus = world if on_gpu else 0
    price = given.price_per_gpu_hour
    if given.sample:
        found = estimate.from_sample(
            given.sample,
            rows=rows,
            files=files,
            num_actors=num_actors,
            gpus_per_actor=gpus,
            price_per_gpu_hour=price,
        )
        assumed += _told_of_sample(given.sample, num_actors)
    elif given.tokens_per_second or (fit and fit.tokens_per_second):
        speed, basis = (fit.tokens_per_second if fit else None), "the data sheet"
        if given.tokens_per_second:
            speed, basis = Range.exactly(given.tokens_per_second), "--tokens-per-second"
        assert speed is not None, "one of the two is there"
        found = estimate.from_figures(
            rows=rows,
            max_tokens_per_row=config.max_tokens_per_row,
            tokens_per_second=speed,
            weight_bytes=size.weight_bytes / world if size else 0.0,
            num_actors=num_actors,
            gpus_per_actor=gpus,
            price_per_gpu_hour=price,
            basis=basis,
        )
        assumed += _told_of_lengths()
        if given.gpu and device == "cpu":
            assumed.append(f"the estimate is for {given.gpu.name}, although engine.device is cpu")
        if not given.tokens_per_second:
            assumed.append(_ROOFLINE)
    if given.price_per_gpu_hour is not None and found and found.cost is None:
        warnings.append("--price-per-gpu-hour counts for nothing: no GPU is used (engine.device)")
    return Forecast(size=size, fit=fit, estimate=found, assumptions=tuple(assumed), warnings=tuple(warnings))


_ROOFLINE = (
    "tokens/s are a roofline over the data sheet, and 35% of it for the low end; nothing was measured on "
    "such a GPU. For comparison: the paper's 3M rows of an 8B model took 206 GPU-hours on A100s with the "
    "software of 2024. --sample measures"
)


def _size(build_spec: BuildSpec) -> ModelSize:
    engine = build_spec.config.engine
    return read_model_size(
        build_spec.model,
        dtype=engine.dtype,
        quantization=engine.quantization,
        cache_dtype=str(engine.extra.get("kv_cache_dtype", "auto")),
    )


def _fit(build_spec: BuildSpec, gpu: Gpu, size: ModelSize) -> Fit:
    config = build_spec.config
    engine = config.engine
    prompt = max(
        len(build_spec.chat_format.prefix(p.text if p else None)) for p in build_spec.prompts or (None,)
    )
    at_most = config.max_tokens_per_row
    # vLLM refuses to start where not even one sequence of the longest kind has room.
    longest = engine.max_model_len or size.max_tokens or prompt + at_most
    return estimate.fit(
        size,
        gpu,
        tensor_parallel=engine.tensor_parallel_size,
        pipeline_parallel=engine.pipeline_parallel_size,
        memory_share=engine.gpu_memory_utilization,
        max_num_seqs=engine.max_num_seqs,
        row_tokens=prompt + estimate.expected_row_tokens(at_most),
        longest=longest,
    )


def _too_large(fit: Fit) -> str:
    need, have = fit.weight_bytes / 1e9, fit.usable_bytes / 1e9
    if fit.cache_tokens:
        return (
            f"on {fit.gpus} x {fit.gpu} beside {need:,.1f} GB of weights there is cache for "
            f"{fit.cache_tokens:,} tokens, less than one sequence may have: lower engine.max_model_len, "
            "raise engine.tensor_parallel_size, or use a larger GPU"
        )
    return (
        f"the model does not fit: {need:,.1f} GB of weights on each of {fit.gpus} x {fit.gpu}, of which "
        f"{have:,.1f} GB are used (engine.gpu_memory_utilization): raise engine.tensor_parallel_size, set "
        "engine.quantization, or use a larger GPU"
    )


def _told_of_fit(gpu: Gpu, size: ModelSize) -> list[str]:
    return [
        f"{gpu.name} by its data sheet: {gpu.memory / 1e9:g} GB, {gpu.bandwidth / 1e9:,.0f} GB/s; 1 GB "
        "beside weights and cache for the engine itself",
        f"the model's parameters: {size.source}; every layer keeps the whole context in its cache",
    ]


def _told_of_lengths() -> list[str]:
    low, middle, high = estimate.FILL
    return [
        f"rows use {low:.0%} to {high:.0%} of max_tokens (the paper's {middle:.0%}) and every attempt is "
        "accepted; a file takes 1.2 to 2.5 bytes a token",
        "an engine starts in one to three minutes and the time to read its weights from a disk; no download",
    ]


def _told_of_sample(sample: Sample, num_actors: int) -> list[str]:
    told = []
    if num_actors != sample.engines:
        told.append(
            f"{num_actors} engines are each as fast as the {sample.engines} here were, and start as fast"
        )
    return told
