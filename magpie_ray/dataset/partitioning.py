"""Rows to partitions to shards: pure arithmetic of a build's grid."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil

from magpie_ray.config.sampling import EXPECTED_FILL
from magpie_ray.types import Partition

# Tokens a second of one actor, by device, without a measurement of this model on this machine.
_ASSUMED_TOKENS_PER_SECOND = {"cuda": 5000.0, "cpu": 3000.0}
_PARTITION_SECONDS = 300.0
_MIN_PARTITIONS_PER_ACTOR = 8


def auto_rows_per_partition(*, num_rows: int, num_actors: int, device: str, max_tokens_per_row: int) -> int:
    """Rows of a grid cell: about five minutes of one actor, and at least eight cells an actor."""
    rows_per_second = _ASSUMED_TOKENS_PER_SECOND[device] / max(1.0, max_tokens_per_row * EXPECTED_FILL)
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
