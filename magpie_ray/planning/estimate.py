"""The cost of a build: memory and batch size of an engine, tokens, time, GPU-hours, bytes and money.

Pure arithmetic. Invariants: more rows never cost less; the low end of a range is at most its high end.
"""

from dataclasses import dataclass
from typing import Self

from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.step_cost import StepCost
from magpie_ray.model.size import ModelSize
from magpie_ray.planning.gpus import Gpu

# GPU memory beside weights and cache: activations, CUDA graphs, the driver.
_RESERVED_BYTES = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """A figure that lies between `low` and `high`, neither of them negative."""

    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Self:
        return cls(low=value, high=value)

    def __mul__(self, factor: "Range | float") -> "Range":
        by = factor if isinstance(factor, Range) else Range.exactly(factor)
        return Range(low=self.low * by.low, high=self.high * by.high)

    def __truediv__(self, divisor: "Range") -> "Range":
        return Range(low=self.low / divisor.high, high=self.high / divisor.low)

    def __add__(self, other: "Range") -> "Range":
        return Range(low=self.low + other.low, high=self.high + other.high)


# tokens/s as a share of the roofline: prefill, scheduling, sampling, slower kernels. docs/speed.md has
# published runs beside it.
SHARE = Range(low=0.25, high=0.7)
# The share of max_tokens that messages use, around the paper's.
FILL = Range(low=0.18, high=0.45)
# English text in zstd, with the token counts beside it; the other columns of a row.
BYTES_PER_TOKEN, _BYTES_PER_ROW = Range(low=1.2, high=2.5), Range.exactly(40.0)
# Tokens that a step reads of prompts: vLLM's max_num_batched_tokens on large GPUs.
_READ_AT_ONCE = 8192
# An engine's start: compiling and capturing graphs, and reading the weights from a disk. No download.
_START_SECONDS, _LOAD_BYTES_PER_SECOND = Range(low=60.0, high=180.0), Range(low=0.5e9, high=3e9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """How a model fits an engine of `gpus` GPUs of one kind. Bytes are those on one GPU.

    cache_tokens: what the KV cache of the whole engine holds. sequences: running at once at the expected
    lengths, at most max_num_seqs. tokens_per_second: of the whole engine, by the data sheet.
    """

    gpu: str
    gpus: int
    usable_bytes: float
    weight_bytes: float
    cache_bytes: float
    cache_bytes_per_token: float
    cache_tokens: int
    max_num_seqs: int
    sequences: int
    tokens_per_second: Range | None

    @property
    def fits(self) -> bool:
        """Whether the engine can run any sequence."""
        return self.sequences > 0


def fit_model(size: ModelSize, gpu: Gpu, engine: EngineConfig, *, row_tokens: float, longest: int) -> Fit:
    """How a model fits an engine on GPUs of one kind.

    row_tokens: expected of a whole conversation, prompt included. longest: tokens of the longest sequence
    that the cache must hold for vLLM to start.
    """
    gpus = engine.tensor_parallel_size * engine.pipeline_parallel_size
    weights = size.weight_bytes / gpus
    per_token = size.cache_bytes_per_token(
        tensor_parallel=engine.tensor_parallel_size, pipeline_parallel=engine.pipeline_parallel_size
    )
    usable = gpu.memory * engine.gpu_memory_utilization
    cache = max(0.0, usable - weights - _RESERVED_BYTES)
    tokens, slots = int(cache / per_token), engine.max_num_seqs or gpu.max_num_seqs
    # A request holds its prompt and the part of the message so far: half of it on average.
    held = max(1.0, row_tokens / 2)
    sequences = min(slots, int(tokens / held)) if tokens >= longest else 0
    speed = None
    if sequences:
        cost = StepCost.roofline(
            bandwidth=gpu.bandwidth,
            arithmetic=gpu.arithmetic,
            weight_bytes=weights,
            parameters=size.active_parameters / gpus,
            cache_bytes_per_token=per_token,
        )
        speed = SHARE * (sequences / cost.seconds(tokens=sequences, context_tokens=int(sequences * held)))
    return Fit(
        gpu=gpu.name,
        gpus=gpus,
        usable_bytes=usable,
        weight_bytes=weights,
        cache_bytes=cache,
        cache_bytes_per_token=per_token,
        cache_tokens=tokens,
        max_num_seqs=slots,
        sequences=sequences,
        tokens_per_second=speed,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Rows of the build made by real engines for a while (see driver.sample), in seconds, tokens and bytes.

    engines: that worked side by side. whole: every pending row was made, and `seconds` is the time that took.
    start_seconds: from the command to the first engine that was up if `whole`, otherwise to the last.
    end_seconds: from the last row to the end of the command. tokens_per_second: of one engine while rows were
    still begun. tail_seconds: what the last rows take longer, when no more begin. tokens: of accepted and
    rejected attempts. bytes_per_file: beside the bytes of its rows.
    """

    engines: int
    rows: int
    attempts: int
    rejected: int
    tokens: int
    seconds: float
    start_seconds: float
    end_seconds: float
    tokens_per_second: float
    tail_seconds: float
    bytes_per_row: float
    bytes_per_file: float
    whole: bool
    device: str

    @property
    def tokens_per_row(self) -> float:
        """Tokens generated for an accepted row, rejected attempts included."""
        return self.tokens / max(1, self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """The rows and files that are pending, and the actors that make them.

    gpus_per_actor: 0 on CPUs. price_per_gpu_hour: in any currency.
    """

    rows: int
    files: int
    num_actors: int
    gpus_per_actor: int
    price_per_gpu_hour: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What the pending rows will take. wall_seconds: of the whole command, the start of engines included.

    gpu_hours: of all actors over that time, idle or not; None without GPUs. cost: in the currency of the
    price; None without a price. basis: what the figures rest on.
    """

    tokens: Range
    wall_seconds: Range
    size_bytes: Range
    gpu_hours: Range | None
    cost: Range | None
    basis: str


def from_sample(sample: Sample, workload: Workload) -> Estimate:
    """An estimate from measured figures of this build on this machine."""
    rows, num_actors = workload.rows, workload.num_actors
    tokens = rows * sample.tokens_per_row
    if sample.whole and num_actors == sample.engines:
        work, basis = sample.seconds, "the whole build, made once for trial"
    else:
        work = tokens / (sample.tokens_per_second * num_actors) + sample.tail_seconds
        basis = f"{sample.rows:,} rows made by {sample.engines} engines in {sample.seconds:,.0f} s"
    return _estimate(
        workload,
        tokens=Range.exactly(tokens),
        wall=Range.exactly(sample.start_seconds + work + sample.end_seconds),
        size=Range.exactly(rows * sample.bytes_per_row + workload.files * sample.bytes_per_file),
        basis=basis,
    )


def from_speed(
    tokens_per_second: Range, workload: Workload, *, max_tokens_per_row: int, weight_bytes: float, basis: str
) -> Estimate:
    """An estimate from one engine's tokens/s and typical lengths. weight_bytes: on one GPU."""
    tokens = FILL * float(workload.rows * max_tokens_per_row)
    return _estimate(
        workload,
        tokens=tokens,
        wall=tokens / (tokens_per_second * workload.num_actors) + _start_seconds(weight_bytes),
        size=tokens * BYTES_PER_TOKEN + _BYTES_PER_ROW * workload.rows,
        basis=basis,
    )


def from_reading(
    tokens_per_second: Range,
    workload: Workload,
    *,
    tokens_per_row: float,
    bytes_per_row: float,
    weight_bytes: float,
    basis: str,
) -> Estimate:
    """An estimate of scores, which an engine reads tokens for and hardly writes any. As from_speed.

    tokens_per_row: those of a row's prompts that the prefix cache has not. bytes_per_row: in a file.
    """
    tokens = Range.exactly(workload.rows * tokens_per_row)
    return _estimate(
        workload,
        tokens=tokens,
        wall=tokens / (tokens_per_second * workload.num_actors) + _start_seconds(weight_bytes),
        size=Range.exactly(workload.rows * bytes_per_row),
        basis=basis,
    )


def _start_seconds(weight_bytes: float) -> Range:
    return _START_SECONDS + Range.exactly(weight_bytes) / _LOAD_BYTES_PER_SECOND


def reading_speed(size: ModelSize, gpu: Gpu, engine: EngineConfig) -> Range:
    """Tokens/s that an engine on GPUs of one kind reads, in full batches of prompts, by the data sheet."""
    gpus = engine.tensor_parallel_size * engine.pipeline_parallel_size
    cost = StepCost.roofline(
        bandwidth=gpu.bandwidth,
        arithmetic=gpu.arithmetic,
        weight_bytes=size.weight_bytes / gpus,
        parameters=size.active_parameters / gpus,
        cache_bytes_per_token=0.0,
    )
    return SHARE * (_READ_AT_ONCE / cost.seconds(tokens=_READ_AT_ONCE, context_tokens=0))


def _estimate(workload: Workload, *, tokens: Range, wall: Range, size: Range, basis: str) -> Estimate:
    if not workload.rows:
        wall = Range.exactly(0.0)
    gpus, price = workload.num_actors * workload.gpus_per_actor, workload.price_per_gpu_hour
    hours = wall * (gpus / 3600) if gpus else None
    return Estimate(
        tokens=tokens,
        wall_seconds=wall,
        size_bytes=size,
        gpu_hours=hours,
        cost=hours * price if hours and price is not None else None,
        basis=basis,
    )
