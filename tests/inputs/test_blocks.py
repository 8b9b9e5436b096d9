"""Rows get their inputs from the copy in the build: the right ones, by a few ranged reads."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray import draws
from magpie_ray.inputs.blocks import InputBlocks
from magpie_ray.storage.storage import Storage
from tests.support.builds import memory_storage
from tests.support.inputs import copied, write_table

some = settings(max_examples=25, deadline=None)


class CountingStorage(Storage):
    """Counts the ranges that are read, and their bytes."""

    requests = bytes_read = 0

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        self.requests += 1
        self.bytes_read += stop - start
        return super().read_range(key, start, stop)


def people(number: int) -> list[dict[str, Any]]:
    return [
        {"system_prompt": f"You talk to person {i}." if i % 5 else None, "age": i, "w": 1.0 + i % 3}
        for i in range(number)
    ]


def blocks_of(storage: Storage, path: Path, pick: Any, *keep: str, **settings: Any) -> InputBlocks:
    return InputBlocks(storage, copied(storage, path, *keep, **settings), seed=3, pick=pick)


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize("number", [1, 63, 64, 65, 200])
def test_rows_take_the_inputs_in_order_and_begin_again_after_the_last(
    tmp_path: Path, ending: str, number: int
) -> None:
    path = write_table(tmp_path / f"people{ending}", people(number))
    blocks = blocks_of(memory_storage(), path, "in_order", "age")
    rows = range(number - 1, 3 * number)
    for row_id, loaded in zip(rows, blocks.load(rows), strict=True):
        person = people(number)[row_id % number]
        assert (loaded.row_id, loaded.input.input_id) == (row_id, row_id % number)
        assert loaded.prompt == person["system_prompt"]
        assert loaded.input.kept.to_pylist() == [{"age": person["age"]}]
        assert loaded.input.kept.schema.field("age").type == pa.int64()


@pytest.mark.parametrize("weight", [None, "w"])
def test_rows_at_random_have_the_same_input_whatever_else_is_loaded(
    tmp_path: Path, weight: str | None
) -> None:
    path = write_table(tmp_path / "people.parquet", people(1_000))
    storage = memory_storage()
    blocks = blocks_of(storage, path, "at_random", "age", weight=weight, part_inputs=128)
    rows = list(range(500))
    together = {one.row_id: one.input.input_id for one in blocks.load(rows)}
    other = InputBlocks(
        storage, copied(storage, path, "age", weight=weight), seed=3, pick="at_random", cache_bytes=1
    )
    for row_id in rows[::-37]:
        [alone] = other.load([row_id])
        assert alone.input.input_id == together[row_id] == alone.input.kept.column("age")[0].as_py()


def test_inputs_are_drawn_by_their_weights(tmp_path: Path) -> None:
    rows = [{"system_prompt": str(i), "w": 10.0 if i in (5, 150) else 0.05} for i in range(200)]
    path = write_table(tmp_path / "weighted.csv", rows)
    blocks = blocks_of(memory_storage(), path, "at_random", weight="w", part_inputs=64)
    drawn = Counter(one.input.input_id for one in blocks.load(range(4_000)))
    assert drawn[5] / 4_000 == pytest.approx(10 / 29.9, abs=0.03)
    assert drawn[150] / 4_000 == pytest.approx(10 / 29.9, abs=0.03)
    assert len(drawn) > 190


@some
@given(
    weights=st.lists(st.floats(0.001, 1000), min_size=1, max_size=300),
    rows=st.lists(st.integers(0, 2**40), min_size=1, max_size=20),
    part=st.sampled_from([64, 128, 1 << 16]),
)
def test_a_weighted_draw_over_parts_and_blocks_is_one_over_all_weights(
    tmp_path_factory: pytest.TempPathFactory, weights: list[float], rows: list[int], part: int
) -> None:
    path = tmp_path_factory.mktemp("weights") / "w.parquet"
    pq.write_table(pa.table({"system_prompt": [str(i) for i in range(len(weights))], "w": weights}), path)
    blocks = blocks_of(memory_storage(), path, "at_random", weight="w", part_inputs=part)
    total = sum(weights)
    for loaded in blocks.load(rows):
        share = draws.input_share_of(loaded.row_id, seed=3) * total
        before = sum(weights[: loaded.input.input_id])
        slack = 1e-9 * total
        assert before - slack <= share <= before + weights[loaded.input.input_id] + slack


@some
@given(data=st.data(), number=st.integers(1, 400), part=st.sampled_from([64, 192]))
def test_any_rows_in_any_order_get_their_own_inputs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, number: int, part: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.parquet"
    pq.write_table(pa.table({"system_prompt": [f"p{i}" for i in range(number)]}), path)
    blocks = blocks_of(memory_storage(), path, "in_order", part_inputs=part)
    rows = data.draw(st.lists(st.integers(0, 3 * number), max_size=80))
    assert [one.prompt for one in blocks.load(rows)] == [f"p{row % number}" for row in rows]


def test_rows_in_a_row_are_read_by_few_requests_and_no_more_than_is_near_them(tmp_path: Path) -> None:
    rows = [{"system_prompt": f"{i} " + "abcdefgh"[i % 8] * 500} for i in range(5_000)]
    path = write_table(tmp_path / "many.parquet", rows)
    storage = CountingStorage(str(tmp_path / "out"))
    index = copied(storage, path)
    whole = sum(part.index_at for part in index.parts)
    blocks = InputBlocks(storage, index, seed=0, pick="in_order")
    blocks.load(range(1_000, 1_064))
    assert storage.requests == 2  # the index, and the two blocks together
    assert storage.bytes_read < whole / 10
    before = storage.requests
    blocks.load(range(1_000, 1_064))
    assert storage.requests == before  # they are still known


def test_a_loaded_row_does_not_keep_its_block_in_memory(tmp_path: Path) -> None:
    rows = [{"system_prompt": "x", "note": f"{i}" * 2_000} for i in range(64)]
    path = write_table(tmp_path / "notes.parquet", rows)
    blocks = InputBlocks(
        storage := memory_storage(), copied(storage, path, "note"), seed=0, pick="at_random", cache_bytes=1
    )
    [one] = blocks.load([7])
    assert one.input.kept.get_total_buffer_size() < 6_000
