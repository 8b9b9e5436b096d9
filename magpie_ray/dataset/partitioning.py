"""The arithmetic of a build's grid: rows to partitions, partitions to shards. Pure.

Invariants: partitions are cut at multiples of the grid and never overlap; pending and committed partitions
together are exactly rows 0..num_rows-1.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import ceil

from magpie_ray.config.sampling import EXPECTED_FILL
from magpie_ray.errors import ConfigError
from magpie_ray.types import Partition

# Assumed tokens per second of one actor, where this model was not measured on this machine.
_ASSUMED_TOKENS_PER_SECOND = {"cuda": 5000.0, "cpu": 3000.0}
_PARTITION_SECONDS = 300.0
_MIN_PARTITIONS_PER_ACTOR = 8
# The Hugging Face hub takes 10,000 files in a folder, and notices make some more. A larger partition loses
# more with its actor, so it is at most so many times the usual one.
_MOST_PARTITIONS, _LARGEST = 9_000, 4
# A driver holds 1.3 KB for each, and lists of those that are still to be made.
_MOST_FILES = 5_000_000


def auto_rows_per_partition(*, num_rows: int, num_actors: int, device: str, max_tokens_per_row: int) -> int:
    """Rows of a grid cell: about five minutes of one actor, and at least eight cells an actor.

    A build of more than 9,000 such cells gets larger ones, up to twenty minutes of one actor.
    """
    rows_per_second = _ASSUMED_TOKENS_PER_SECOND[device] / max(1.0, max_tokens_per_row * EXPECTED_FILL)
    by_time = int(rows_per_second * _PARTITION_SECONDS)
    by_number = min(_LARGEST * by_time, ceil(num_rows / _MOST_PARTITIONS))
    by_share = ceil(num_rows / (_MIN_PARTITIONS_PER_ACTOR * num_actors))
    return max(1, min(max(by_time, by_number), by_share))


def check_number_of_files(num_rows: int, rows_per_partition: int) -> None:
    """ConfigError for more files than one driver can keep track of, before any list of them is made."""
    if (files := ceil(num_rows / rows_per_partition)) > _MOST_FILES:
        raise ConfigError(
            f"output.rows_per_partition: {rows_per_partition:,} makes {files:,} files of num_rows="
            f"{num_rows:,}, and one driver keeps track of {_MOST_FILES:,} at most: set it to "
            f"{ceil(num_rows / _MOST_FILES):,} or more. A build that has begun keeps its own: then choose "
            "another output.path"
        )


def pending(num_rows: int, grid: int, committed: Iterable[Partition]) -> list[Partition]:
    """The ranges of 0..num_rows-1 that no committed partition covers, cut at grid lines, in order."""
    holes: list[Partition] = []
    position = 0
    for done in sorted(committed, key=lambda partition: partition.start):
        holes += _cells(position, min(done.start, num_rows), grid)
        position = max(position, done.stop)
    return holes + _cells(position, num_rows, grid)


def _cells(start: int, stop: int, grid: int) -> list[Partition]:
    """Rows start..stop-1 cut at the multiples of `grid`; none when the range is empty."""
    cuts = [start, *range((start // grid + 1) * grid, stop, grid), stop]
    return [Partition(start=a, stop=b) for a, b in pairwise(cuts) if a < b]


def rows_in(partitions: Iterable[Partition]) -> int:
    """How many rows the partitions have together."""
    return sum(partition.num_rows for partition in partitions)


def shards(partitions: Sequence[Partition], num_shards: int) -> list[list[Partition]]:
    """Consecutive partitions in `num_shards` shards, as equal in rows as whole partitions allow.

    Some shards may be empty.
    """
    total = rows_in(partitions)
    runs: list[list[Partition]] = [[] for _ in range(num_shards)]
    before = 0
    for partition in partitions:
        middle = before + partition.num_rows / 2
        runs[min(num_shards - 1, int(middle * num_shards / total))].append(partition)
        before += partition.num_rows
    return runs
