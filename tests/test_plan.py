"""Row ranges, shards, per-row draws, seeds and the fingerprint."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray import plan
from magpie_ray.types import Partition, SystemPrompt

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
        pending = plan.pending(asked, grid, data.draw(st.permutations(committed)))
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
    first = plan.pending(num_rows, grid, [])
    assert [p.start for p in first] == [0, *(p.stop for p in first[:-1])]
    assert first[-1].stop == num_rows
    # A notice has cut the last file short; then the build grows.
    last = first[-1]
    committed = [*first[:-1], Partition(start=last.start, stop=min(last.stop, last.start + cut))]
    more = plan.pending(num_rows + grown, grid, committed)
    assert sum(p.num_rows for p in [*committed, *more]) == num_rows + grown
    assert all(a.stop == b.start for a, b in pairwise(sorted([*committed, *more])))


@some
@given(st.sets(st.integers(0, 60)), st.integers(1, 70), st.integers(1, 20))
def test_any_holes_are_found_whatever_made_them(held: set[int], num_rows: int, grid: int) -> None:
    committed = [Partition(start=row, stop=row + 1) for row in held]
    assert rows(plan.pending(num_rows, grid, committed)) == [r for r in range(num_rows) if r not in held]


def test_a_file_that_reaches_beyond_num_rows_leaves_nothing_pending() -> None:
    assert plan.pending(50, 100, [Partition(start=0, stop=100)]) == []


def test_without_holes_there_is_one_partition_a_cell() -> None:
    assert plan.pending(105, 50, []) == [
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
    shards = plan.shards(partitions, num_shards)
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
    lengths = [len(shard) for shard in plan.shards(partitions, num_shards)]
    assert max(lengths) - min(lengths) <= 1


def test_system_prompts_follow_their_weights() -> None:
    weights = {"a": 0.7, "b": 0.2, "c": 0.1}
    prompts = [SystemPrompt(text=key, key=key, weight=weight) for key, weight in weights.items()]
    drawn = Counter(plan.system_prompt_of(row, seed=3, prompts=prompts).text for row in range(10_000))
    for key, weight in weights.items():
        assert drawn[key] / 10_000 == pytest.approx(weight, abs=0.015)


@some
@given(seed=st.integers(0, 2**31 - 1), row_id=st.integers(0, 2**40))
def test_a_system_prompt_depends_on_seed_and_row_alone(seed: int, row_id: int) -> None:
    prompts = [SystemPrompt(text=text, weight=1 / 3) for text in "abc"]
    first = plan.system_prompt_of(row_id, seed=seed, prompts=prompts)
    assert first in prompts
    assert plan.system_prompt_of(row_id, seed=seed, prompts=list(prompts)) == first


def test_system_prompts_of_two_seeds_differ_and_no_prompts_give_none() -> None:
    prompts = [SystemPrompt(text=text, weight=0.5) for text in "ab"]
    draws = [[plan.system_prompt_of(row, seed=seed, prompts=prompts) for row in range(64)] for seed in (0, 1)]
    assert draws[0] != draws[1]
    assert plan.system_prompt_of(0, seed=0, prompts=()) is None


def test_weights_that_sum_to_less_than_one_by_rounding_still_give_a_prompt() -> None:
    prompts = [SystemPrompt(text="a", weight=0.0), SystemPrompt(text="b", weight=1e-300)]
    assert plan.system_prompt_of(0, seed=0, prompts=prompts) == prompts[-1]


@some
@given(
    seed=st.integers(0, 2**31 - 1),
    starts=st.sets(
        st.tuples(
            st.integers(1, plan.MAX_RUNS - 1),
            st.integers(0, plan.MAX_ENGINE_STARTS - 1),
        ),
        max_size=200,
    ),
)
def test_engine_seeds_are_unique_over_runs_and_starts_and_fit_32_bits(
    seed: int, starts: set[tuple[int, int]]
) -> None:
    seeds = {plan.engine_seed(seed=seed, run=run, start=start) for run, start in starts}
    assert len(seeds) == len(starts)
    assert all(0 <= value < 2**32 for value in seeds)


def test_runs_and_starts_do_not_run_into_each_other() -> None:
    corners = [0, 1, 2, 3, plan.MAX_ENGINE_STARTS - 2, plan.MAX_ENGINE_STARTS - 1]
    seeds = {plan.engine_seed(seed=9, run=run, start=start) for run in range(1, 6) for start in corners}
    assert len(seeds) == 5 * len(corners)


@pytest.mark.parametrize(("run", "start"), [(0, 0), (plan.MAX_RUNS, 0), (1, plan.MAX_ENGINE_STARTS), (1, -1)])
def test_engine_seeds_that_would_repeat_are_refused(run: int, start: int) -> None:
    with pytest.raises(ValueError, match="engine seeds would repeat"):
        plan.engine_seed(seed=0, run=run, start=start)


def test_builds_of_two_seeds_have_other_engine_seeds() -> None:
    assert plan.engine_seed(seed=0, run=1, start=0) != plan.engine_seed(seed=1, run=1, start=0)


def test_request_seeds_differ_by_each_of_their_parts_and_fit_63_bits() -> None:
    seeds = {
        plan.request_seed(row, seed=seed, attempt=attempt, message=message)
        for row in range(10)
        for seed in range(3)
        for attempt in (1, 2)
        for message in range(4)
    }
    assert len(seeds) == 10 * 3 * 2 * 4
    assert all(0 <= value < 2**63 for value in seeds)
    again = plan.request_seed(7, seed=1, attempt=2, message=3)
    assert again == plan.request_seed(7, seed=1, attempt=2, message=3)


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
    grid = plan.auto_rows_per_partition(
        num_rows=num_rows, num_actors=num_actors, device=device, max_tokens_per_row=max_tokens
    )
    assert grid >= 1
    # Whole rows: the last cells may be short, so eight of this size would hold all rows and no fewer do.
    assert grid == 1 or 8 * num_actors * (grid - 1) < num_rows


def test_auto_partitions_take_about_five_minutes_of_a_gpu() -> None:
    grid = plan.auto_rows_per_partition(
        num_rows=10**7, num_actors=1, device="cuda", max_tokens_per_row=512 + 1024
    )
    assert 3000 < grid < 4000


def test_the_fingerprint_ignores_the_order_of_keys_and_sees_every_value() -> None:
    identity = {"a": 1, "b": {"x": [1, 2], "y": None}}
    assert plan.fingerprint(identity) == plan.fingerprint({"b": {"y": None, "x": [1, 2]}, "a": 1})
    assert plan.fingerprint(identity) != plan.fingerprint({**identity, "a": 1.5})
    assert plan.fingerprint(identity) != plan.fingerprint({"a": 1, "b": {"x": [2, 1], "y": None}})
    assert len(plan.fingerprint({})) == 64


@some
@given(seed=st.integers(0, 2**32 - 1), row_id=st.integers(0, 10**12), other=st.integers(1, 10**6))
def test_a_rows_sampling_setting_depends_on_seed_and_row_alone(seed: int, row_id: int, other: int) -> None:
    weights = [0.5, 0.3, 0.2]
    chosen = plan.sampling_of(row_id, seed=seed, weights=weights)
    assert chosen == plan.sampling_of(row_id, seed=seed, weights=list(weights))
    assert 0 <= chosen < 3
    assert plan.sampling_of(row_id, seed=seed, weights=[1.0]) == 0


def test_sampling_settings_come_by_weight_and_apart_from_system_prompts() -> None:
    weights = [0.6, 0.4]
    prompts = tuple(SystemPrompt(text=str(w), weight=w) for w in weights)
    rows = range(20_000)
    settings = [plan.sampling_of(row, seed=3, weights=weights) for row in rows]
    firsts = [plan.system_prompt_of(row, seed=3, prompts=prompts) == prompts[0] for row in rows]
    assert sum(settings) / len(rows) == pytest.approx(0.4, abs=0.02)
    together = sum(first for first, setting in zip(firsts, settings, strict=True) if setting == 0)
    assert together / len(rows) == pytest.approx(0.36, abs=0.02)
