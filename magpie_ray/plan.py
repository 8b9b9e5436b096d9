"""Pure arithmetic of a build: rows to partitions to shards, what is drawn per row, seeds, the fingerprint.

What always holds: partitions are cut at multiples of the grid and never overlap; pending partitions and
committed ones together are exactly 0..num_rows-1; nothing here depends on the number of actors but `shards`.
"""

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import ceil

from magpie_ray.types import Partition, SystemPrompt

# Seeds of vLLM must fit NumPy's 32 bits: 12 bits count the runs of a build, 20 the engine starts of a run.
_RUN_BITS, _START_BITS = 12, 20
MAX_RUNS, MAX_ENGINE_STARTS = 1 << _RUN_BITS, 1 << _START_BITS

# Streams of per-row draws: the same (seed, row_id) gives independent values for each purpose.
_PROMPT_STREAM, _REQUEST_STREAM, _SAMPLING_STREAM = 1, 2, 3

# Without a measurement of this model on this machine: tokens a second of one actor, by device, and the
# part of max_tokens that messages use on average (a paper row: 426 tokens of 512 + 1024 allowed).
_ASSUMED_TOKENS_PER_SECOND = {"cuda": 5000.0, "cpu": 3000.0}
_ASSUMED_FILL = 0.28
_PARTITION_SECONDS = 300.0
_MIN_PARTITIONS_PER_ACTOR = 8


def auto_rows_per_partition(*, num_rows: int, num_actors: int, device: str, max_tokens_per_row: int) -> int:
    """Rows of a grid cell: about five minutes of one actor, and at least eight cells an actor."""
    rows_per_second = _ASSUMED_TOKENS_PER_SECOND[device] / max(1.0, max_tokens_per_row * _ASSUMED_FILL)
    by_time = int(rows_per_second * _PARTITION_SECONDS)
    by_share = ceil(num_rows / (_MIN_PARTITIONS_PER_ACTOR * num_actors))
    return max(1, min(by_time, by_share))


def pending(num_rows: int, grid: int, committed: Iterable[Partition]) -> list[Partition]:
    """The ranges of 0..num_rows-1 that no committed partition covers, cut at grid lines, in order."""
    holes: list[Partition] = []
    position = 0
    for done in sorted(committed, key=lambda partition: partition.start):
        holes += _cells(position, min(done.start, num_rows), grid)
        position = max(position, done.stop)
    return holes + _cells(position, num_rows, grid)


def _cells(start: int, stop: int, grid: int) -> list[Partition]:
    """start..stop-1 cut at the multiples of `grid`; empty when there is nothing between."""
    cuts = [start, *range((start // grid + 1) * grid, stop, grid), stop]
    return [Partition(start=a, stop=b) for a, b in pairwise(cuts) if a < b]


def rows_in(partitions: Iterable[Partition]) -> int:
    """Rows of them all."""
    return sum(partition.num_rows for partition in partitions)


def shards(partitions: Sequence[Partition], num_shards: int) -> list[list[Partition]]:
    """Contiguous runs of `partitions`, as equal in rows as whole partitions allow; some may be empty."""
    total = rows_in(partitions)
    runs: list[list[Partition]] = [[] for _ in range(num_shards)]
    before = 0
    for partition in partitions:
        middle = before + partition.num_rows / 2
        runs[min(num_shards - 1, int(middle * num_shards / total))].append(partition)
        before += partition.num_rows
    return runs


def system_prompt_of(row_id: int, *, seed: int, prompts: Sequence[SystemPrompt]) -> SystemPrompt | None:
    """The row's system prompt, drawn by weight from (seed, row_id) alone; None when there are none."""
    if not prompts:
        return None
    return prompts[_choice([p.weight for p in prompts], seed, row_id, _PROMPT_STREAM)]


def sampling_of(row_id: int, *, seed: int, weights: Sequence[float]) -> int:
    """Which of several sampling settings the row is made with, drawn by weight from (seed, row_id) alone."""
    return _choice(weights, seed, row_id, _SAMPLING_STREAM) if len(weights) > 1 else 0


def request_seed(row_id: int, *, seed: int, attempt: int, message: int) -> int:
    """A sampling seed for one request of a reproducible build, 0..2**63-1."""
    return _draw(seed, row_id, _REQUEST_STREAM, attempt, message) >> 1


def engine_seed(*, seed: int, run: int, start: int) -> int:
    """A 32-bit engine seed that no other engine start of the build has had.

    run counts from 1 within the build, start from 0 within the run. The build's own seed shifts the whole
    range, so that two builds of different seeds differ.
    """
    if not 0 < run < MAX_RUNS or not 0 <= start < MAX_ENGINE_STARTS:
        raise ValueError(
            f"run {run} and engine start {start} must be below {MAX_RUNS} and {MAX_ENGINE_STARTS}: "
            "beyond that engine seeds would repeat; finish the build under another output.path"
        )
    return ((run << _START_BITS | start) + _draw(seed, 0) % 2**32) % 2**32


def fingerprint(identity: Mapping[str, object]) -> str:
    """SHA-256 (hex) over the canonical JSON of everything that decides what the rows of a build are."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _choice(weights: Sequence[float], *words: int) -> int:
    """An index of `weights`, which sum to one, a function of `words`."""
    draw = _draw(*words) / 2**64
    uppers = accumulate(weights)
    # The weights sum to one only up to rounding.
    return next((index for index, upper in enumerate(uppers) if draw < upper), len(weights) - 1)


def _draw(*words: int) -> int:
    """A uniform 64-bit number, a function of `words` (each 0..2**64-1)."""
    packed = struct.pack(f"<{len(words)}Q", *words)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little")
