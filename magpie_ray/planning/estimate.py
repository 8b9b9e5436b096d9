"""What a build will take: memory and batch of an engine, tokens, time, GPU-hours, bytes and money.

Pure arithmetic; every figure that was not measured is a range, and says what was assumed. What always holds:
more rows never take less, and a range's low end is at most its high end.
"""

from dataclasses import dataclass
from math import ceil

from magpie_ray.engine.step_cost import StepCost
from magpie_ray.model.size import ModelSize
from magpie_ray.planning.gpus import Gpu

# Beside weights and cache: activations, CUDA graphs, the driver's own.
_RESERVED_BYTES = 1e9
# The most that real kernels reach of a data sheet's figures: as in the simulated rounds (jobs/benchmarks).
_OF_BANDWIDTH, _OF_ARITHMETIC = 0.85, 0.6
_STEP_OVERHEAD_SECONDS = 1e-3
# The other end of the range: prompts, scheduling, sampling, kernels that are not the best.
_LOW_SHARE = 0.35
# The part of max_tokens that messages use: of the paper's rows 28%, other models and prompts write otherwise.
FILL = (0.18, 0.28, 0.45)
# Of English in zstd, with the counts beside it; of a row's other columns.
_BYTES_PER_TOKEN, _BYTES_PER_ROW = (1.2, 2.5), 40.0
# An engine's start without a measurement: load the weights, compile, capture graphs; the download is not in.
_START_SECONDS, _LOAD_BYTES_PER_SECOND = (60.0, 180.0), (3e9, 0.5e9)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """From low to high; one figure where they are equal."""

    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Range":
        return cls(low=value, high=value)

    def times(self, other: "Range | float") -> "Range":
        """Of figures that are not negative."""
        by = other if isinstance(other, Range) else Range.exactly(other)
        return Range(low=self.low * by.low, high=self.high * by.high)

    def over(self, other: "Range") -> "Range":
        return Range(low=self.low / other.high, high=self.high / other.low)

    def plus(self, other: "Range") -> "Range":
        return Range(low=self.low + other.low, high=self.high + other.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """An engine over `gpus` of one kind, in bytes of one of them and tokens of all together.

    sequences: that run at once at the expected lengths, at most max_num_seqs. tokens_per_second: of the
    engine, by the data sheet.
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
        """Whether anything can run."""
        return self.sequences > 0


def fit(
    size: ModelSize,
    gpu: Gpu,
    *,
    tensor_parallel: int,
    pipeline_parallel: int,
    memory_share: float,
    max_num_seqs: int | None,
    row_tokens: float,
    longest: int,
) -> Fit:
    """How a model lies on GPUs of one kind.

    memory_share: engine.gpu_memory_utilization. row_tokens: of a whole conversation, prompt included.
    longest: tokens that the engine must be able to hold of one sequence.
    """
    world = tensor_parallel * pipeline_parallel
    weights = size.weight_bytes / world
    each = size.cache_bytes_per_token(tensor_parallel=tensor_parallel, pipeline_parallel=pipeline_parallel)
    usable = gpu.memory * memory_share
    cache = max(0.0, usable - weights - _RESERVED_BYTES)
    tokens, slots = int(cache / each), max_num_seqs or gpu.max_num_seqs
    # A request holds its prompt and what it has written so far: half of it on average.
    held = max(1.0, row_tokens / 2)
    sequences = min(slots, int(tokens / held)) if tokens >= longest else 0
    speed = None
    if sequences:
        cost = step_cost(size, gpu, world=world, cache_bytes_per_token=each)
        most = sequences / cost.seconds(tokens=sequences, context_tokens=int(sequences * held))
        speed = Range(low=most * _LOW_SHARE, high=most)
    return Fit(
        gpu=gpu.name,
        gpus=world,
        usable_bytes=usable,
        weight_bytes=weights,
        cache_bytes=cache,
        cache_bytes_per_token=each,
        cache_tokens=tokens,
        max_num_seqs=slots,
        sequences=sequences,
        tokens_per_second=speed,
    )


def step_cost(size: ModelSize, gpu: Gpu, *, world: int, cache_bytes_per_token: float) -> StepCost:
    """A roofline: weights are read once a step, the cache of a sequence once a token."""
    bandwidth, arithmetic = gpu.bandwidth * _OF_BANDWIDTH, gpu.arithmetic * _OF_ARITHMETIC
    return StepCost(
        overhead=_STEP_OVERHEAD_SECONDS,
        weights=size.weight_bytes / world / bandwidth,
        token=2 * size.active_parameters / world / arithmetic,
        context_token=cache_bytes_per_token / bandwidth,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """The build's own rows on real engines, for a while (see driver.sample). Seconds, rows, tokens, bytes.

    engines: that worked side by side. start_seconds: from the command until the first engine was up, or,
    where not `whole`, the last; end_seconds: from the last row to the command's end. whole: every row that is
    pending was made, and `seconds` is what that took; else `tokens_per_second`, of one engine, is the rate in
    between, and tail_seconds what the end takes longer, when no more rows begin. tokens: of accepted and
    rejected attempts. bytes_per_file: beside those of its rows.
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
        """Of a row that is kept, with the attempts that were not."""
        return self.tokens / max(1, self.rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What is left of a build takes. wall_seconds: from the command to its end, engines' start included.

    gpu_hours: of all actors over that time, whatever they do; None without GPUs. cost: in the currency of
    the price; None without one.
    """

    tokens: Range
    wall_seconds: Range
    size_bytes: Range
    gpu_hours: Range | None
    cost: Range | None
    basis: str


def from_sample(
    sample: Sample,
    *,
    rows: int,
    files: int,
    num_actors: int,
    gpus_per_actor: int,
    price_per_gpu_hour: float | None,
) -> Estimate:
    """By measured figures of this build on this machine."""
    tokens = rows * sample.tokens_per_row
    if sample.whole and num_actors == sample.engines:
        work, basis = sample.seconds, "the whole build, made once for trial"
    else:
        work = tokens / (sample.tokens_per_second * num_actors) + sample.tail_seconds
        basis = f"{sample.rows:,} rows made by {sample.engines} engines in {sample.seconds:,.0f} s"
    wall = sample.start_seconds + work + sample.end_seconds if rows else 0.0
    return _estimate(
        tokens=Range.exactly(tokens),
        wall=Range.exactly(wall),
        size=Range.exactly(rows * sample.bytes_per_row + files * sample.bytes_per_file),
        gpus=num_actors * gpus_per_actor,
        price=price_per_gpu_hour,
        basis=basis,
    )


def from_figures(
    *,
    rows: int,
    max_tokens_per_row: int,
    tokens_per_second: Range,
    weight_bytes: float,
    num_actors: int,
    gpus_per_actor: int,
    price_per_gpu_hour: float | None,
    basis: str,
) -> Estimate:
    """By assumed lengths, and the tokens that one engine makes in a second."""
    tokens = Range(low=FILL[0], high=FILL[2]).times(float(rows * max_tokens_per_row))
    start = Range(low=_START_SECONDS[0], high=_START_SECONDS[1]).plus(
        Range(low=weight_bytes / _LOAD_BYTES_PER_SECOND[0], high=weight_bytes / _LOAD_BYTES_PER_SECOND[1])
    )
    work = tokens.over(tokens_per_second.times(float(num_actors)))
    size = tokens.times(Range(low=_BYTES_PER_TOKEN[0], high=_BYTES_PER_TOKEN[1]))
    return _estimate(
        tokens=tokens,
        wall=work.plus(start) if rows else Range.exactly(0.0),
        size=size.plus(Range.exactly(rows * _BYTES_PER_ROW)),
        gpus=num_actors * gpus_per_actor,
        price=price_per_gpu_hour,
        basis=basis,
    )


def expected_row_tokens(max_tokens_per_row: int) -> int:
    """Generated tokens of a row, where nothing is known of its model."""
    return ceil(max_tokens_per_row * FILL[1])


def _estimate(
    *, tokens: Range, wall: Range, size: Range, gpus: int, price: float | None, basis: str
) -> Estimate:
    hours = wall.times(gpus / 3600) if gpus else None
    return Estimate(
        tokens=tokens,
        wall_seconds=wall,
        size_bytes=size,
        gpu_hours=hours,
        cost=hours.times(price) if hours and price is not None else None,
        basis=basis,
    )
