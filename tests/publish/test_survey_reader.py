"""How a survey is taken: everything of a small build, a bounded and even sample of a large one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.errors import CorruptBuildError
from magpie_ray.publish.survey_reader import choose, most_repeated, spread_rows, take_survey
from magpie_ray.types import PartitionRecord
from tests.support.builds import build_of, commit, complete_build, memory_storage


def records_of(sizes: list[tuple[int, int]]) -> list[PartitionRecord]:
    """Partitions of so many rows and bytes, one after the other, with a hole of a row between any two."""
    records, start = list[PartitionRecord](), 0
    for rows, size in sizes:
        records.append(PartitionRecord(start=start, stop=start + rows, fingerprint="f", run=1, size=size))
        start += rows + 1
    return records


SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 90)), max_size=30)


@given(SIZES, st.integers(1, 100), st.integers(1, 900))
def test_what_is_chosen_is_bounded_and_never_nothing(
    sizes: list[tuple[int, int]], max_rows: int, max_bytes: int
) -> None:
    records = records_of(sizes)
    chosen = choose(records, max_rows=max_rows, max_bytes=max_bytes)
    assert [record for record in records if record in chosen] == list(chosen)
    if len(chosen) > 1:
        assert sum(record.rows for record in chosen) <= max_rows
        assert sum(record.size for record in chosen) <= max_bytes
    assert bool(chosen) == bool(records)
    if sum(rows for rows, _ in sizes) <= max_rows and sum(size for _, size in sizes) <= max_bytes:
        assert list(chosen) == records


def test_a_sample_is_spread_evenly() -> None:
    records = records_of([(10, 100)] * 1000)
    chosen = choose(records, max_rows=1000, max_bytes=10**9)
    assert len(chosen) == 100
    places = [records.index(record) for record in chosen]
    assert {b - a for a, b in pairwise(places)} == {10}
    assert places[0] == 5


@given(SIZES, st.integers(0, 40))
def test_rows_are_spread_over_all_partitions_and_none_comes_twice(
    sizes: list[tuple[int, int]], number: int
) -> None:
    records = records_of(sizes)
    rows = [row_id for record in records for row_id in range(record.start, record.stop)]
    found = spread_rows(records, number)
    assert len(found) == min(number, len(rows))
    assert found <= set(rows)
    if found:
        places = sorted(rows.index(row_id) for row_id in found)
        assert max(b - a for a, b in zip([-1, *places], [*places, len(rows)], strict=True)) <= (
            2 * len(rows) // len(found) + 1
        )


def test_all_of_a_small_build_is_surveyed() -> None:
    storage = memory_storage()
    _, records = complete_build(storage, num_rows=10, grid=4)
    found = take_survey(storage, records, samples=3)
    assert found.rows == 10
    assert found.duplicates == 9
    assert found.characters == {("user", 1): {4: 10}, ("assistant", 1): {8: 10}}
    assert [row["row_id"] for row in found.samples] == [1, 5, 8]
    assert found.samples[0]["conversation"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
    ]
    assert most_repeated(storage, records, found, 5) == {"Why?": 10}


def test_of_a_large_build_a_part_is_surveyed() -> None:
    storage = memory_storage()
    _, records = complete_build(storage, num_rows=40, grid=4)
    assert take_survey(storage, records, samples=3, max_rows=13).rows == 12


def test_a_build_without_rows_has_an_empty_survey() -> None:
    assert take_survey(memory_storage(), [], samples=3).rows == 0


def test_the_most_repeated_come_first() -> None:
    storage, record = memory_storage(), build_of(grid=4)
    texts = ["once", "twice", "thrice", "twice", "thrice", "thrice"]
    records = [
        commit(storage, record, row_id, row_id + 1, texts=(text, "So.")) for row_id, text in enumerate(texts)
    ]
    found = take_survey(storage, records, samples=0)
    assert most_repeated(storage, records, found, 5) == {"thrice": 3, "twice": 2}
    assert list(most_repeated(storage, records, found, 1)) == ["thrice"]


@pytest.mark.parametrize("data", [b"", b"PAR1 no PAR1"])
def test_a_damaged_file_is_named(data: bytes) -> None:
    storage = memory_storage()
    _, records = complete_build(storage)
    storage.replace(records[1].partition.key, data)
    with pytest.raises(CorruptBuildError, match=r"part-000000000004.parquet can't be read"):
        take_survey(storage, records, samples=1)
