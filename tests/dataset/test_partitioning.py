"""Rows to partitions to shards."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.dataset import partitioning
from magpie_ray.types import Partition

some = settings(max_examples=60, derandomize=True, deadline=None)


def rows(partitions: list[Partition]) -> list[int]:
    return [row for p in partitions for row in range(p.start, p.stop)]


@st.composite
def committed_chains(draw: st.DrawFn, grid: int, num_rows: int) -> list[Partition]:
    """In each cell some files that chain from its start, the last one perhaps cut short."""
    chains = []
    for cell in range(0, num_rows, grid):
        end = min(cell + grid, num_rows)
        cuts = draw(st.lists(st.integers(cell + 1, end), unique=True, max_size=3).map(sorted))
        chains += [Partition(start=a, stop=b) for a, b in zip([cell, *cuts], cuts, strict=False)]
    return chains


@some
@given(data=st.data(), num_rows=st.integers(1, 120), grid=st.integers(1, 40))
def test_pending_and_committed_partitions_are_exactly_all_rows(
    data: st.DataObject, num_rows: int, grid: int
) -> None:
    committed = data.draw(committed_chains(grid, num_rows))
    grown = num_rows + data.draw(st.integers(0, 100))
    for asked in (num_rows, grown):
        pending = partitioning.pending(asked, grid, data.draw(st.permutations(committed)))
        assert sorted(rows(pending) + rows(committed)) == list(range(asked))
        assert pending == sorted(pending)
        assert all(p.start // grid == (p.stop - 1) // grid for p in pending)


@some
@given(
    num_rows=st.integers(1, 10**12),
    cells=st.integers(1, 500),
    grown=st.integers(0, 500),
    cut=st.integers(1, 10**9),
)
def test_builds_of_any_size_are_covered_without_gap_or_overlap_and_so_is_what_they_grow_by(
    num_rows: int, cells: int, grown: int, cut: int
) -> None:
    grid = -(-num_rows // cells)
    first = partitioning.pending(num_rows, grid, [])
    assert [p.start for p in first] == [0, *(p.stop for p in first[:-1])]
    assert first[-1].stop == num_rows
    # A notice has cut the last file short; then the build grows.
    last = first[-1]
    committed = [*first[:-1], Partition(start=last.start, stop=min(last.stop, last.start + cut))]
    more = partitioning.pending(num_rows + grown, grid, committed)
    assert sum(p.num_rows for p in [*committed, *more]) == num_rows + grown
    assert all(a.stop == b.start for a, b in pairwise(sorted([*committed, *more])))


@some
@given(st.sets(st.integers(0, 60)), st.integers(1, 70), st.integers(1, 20))
def test_any_holes_are_found_whatever_made_them(held: set[int], num_rows: int, grid: int) -> None:
    committed = [Partition(start=row, stop=row + 1) for row in held]
    assert rows(partitioning.pending(num_rows, grid, committed)) == [
        r for r in range(num_rows) if r not in held
    ]


def test_a_file_that_reaches_beyond_num_rows_leaves_nothing_pending() -> None:
    assert partitioning.pending(50, 100, [Partition(start=0, stop=100)]) == []


def test_without_holes_there_is_one_partition_a_cell() -> None:
    assert partitioning.pending(105, 50, []) == [
        Partition(start=0, stop=50),
        Partition(start=50, stop=100),
        Partition(start=100, stop=105),
    ]


@some
@given(sizes=st.lists(st.integers(1, 50), max_size=60), num_shards=st.integers(1, 12))
def test_shards_are_contiguous_ordered_balanced_and_cover_everything(
    sizes: list[int], num_shards: int
) -> None:
    partitions, start = [], 0
    for size in sizes:
        partitions.append(Partition(start=start, stop=start + size))
        start += size
    shards = partitioning.shards(partitions, num_shards)
    assert len(shards) == num_shards
    assert [p for shard in shards for p in shard] == partitions
    fair = sum(sizes) / num_shards
    assert all(abs(sum(p.num_rows for p in shard) - fair) <= max(sizes, default=0) for shard in shards)


@some
@given(num_partitions=st.integers(1, 60), num_shards=st.integers(1, 12))
def test_equal_partitions_make_shards_that_differ_by_one_at_most(
    num_partitions: int, num_shards: int
) -> None:
    partitions = [Partition(start=10 * i, stop=10 * i + 10) for i in range(num_partitions)]
    lengths = [len(shard) for shard in partitioning.shards(partitions, num_shards)]
    assert max(lengths) - min(lengths) <= 1


@some
@given(
    num_rows=st.integers(1, 10**8),
    num_actors=st.integers(1, 2000),
    device=st.sampled_from(["cuda", "cpu"]),
    max_tokens=st.integers(1, 100_000),
)
def test_auto_partitions_are_at_least_eight_an_actor_where_there_are_rows_for_it(
    num_rows: int, num_actors: int, device: str, max_tokens: int
) -> None:
    grid = partitioning.auto_rows_per_partition(
        num_rows=num_rows, num_actors=num_actors, device=device, max_tokens_per_row=max_tokens
    )
    assert grid >= 1
    # Whole rows: the last cells may be short, so eight of this size would hold all rows and no fewer do.
    assert grid == 1 or 8 * num_actors * (grid - 1) < num_rows


@pytest.mark.parametrize(
    ("num_rows", "most_files", "most_minutes"),
    [(10**6, 4_000, 1), (3 * 10**7, 9_000, 6), (10**8, 9_000, 17), (10**9, 80_000, 21)],
)
def test_auto_makes_files_that_a_folder_of_the_hub_holds_while_they_take_no_more_than_twenty_minutes(
    num_rows: int, most_files: int, most_minutes: float
) -> None:
    grid = partitioning.auto_rows_per_partition(
        num_rows=num_rows, num_actors=500, device="cuda", max_tokens_per_row=512 + 1024
    )
    assert len(partitioning.pending(num_rows, grid, ())) <= most_files
    assert grid * 430 / 5000 / 60 <= most_minutes


def test_auto_partitions_take_about_five_minutes_of_a_gpu() -> None:
    grid = partitioning.auto_rows_per_partition(
        num_rows=10**7, num_actors=1, device="cuda", max_tokens_per_row=512 + 1024
    )
    assert 3000 < grid < 4000
