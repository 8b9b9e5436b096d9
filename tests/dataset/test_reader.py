"""Rows come back in order, from any row on."""

import pytest

from magpie_ray.dataset.reader import messages_of, read_rows, select_rows
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, commit, complete_build, config_of, memory_storage


class CountingStorage(Storage):
    """Remembers what was read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.keys: list[str] = []

    def read(self, key: str) -> bytes:
        self.keys.append(key)
        return super().read(key)


def row_ids(storage: Storage, first_row: int = 0) -> list[object]:
    return [row["row_id"] for row in read_rows(storage, first_row=first_row)]


@pytest.mark.parametrize("first_row", [0, 3, 4, 5, 9, 10, 99])
def test_rows_come_in_order_from_any_row_on(first_row: int) -> None:
    storage = memory_storage()
    complete_build(storage)
    assert row_ids(storage, first_row) == list(range(first_row, 10))


def test_only_files_that_are_needed_are_read() -> None:
    storage = CountingStorage(memory_storage().url)
    complete_build(storage)
    storage.keys.clear()
    assert next(read_rows(storage, first_row=5))["row_id"] == 5
    assert storage.keys == ["data/part-000000000004.parquet"]


def test_holes_and_foreign_files_are_passed_over() -> None:
    storage = memory_storage()
    commit(storage, build_of(), 0, 2)
    commit(storage, build_of(), 8, 9)
    storage.create("data/aaa.txt", b"first in the listing")
    storage.create("data/zzz.txt", b"last in the listing")
    assert row_ids(storage) == [0, 1, 8]
    assert row_ids(storage, 5) == [8]
    assert row_ids(memory_storage()) == []


def test_a_damaged_file_is_named() -> None:
    storage = memory_storage()
    complete_build(storage)
    storage.replace("data/part-000000000004.parquet", b"PAR1")
    with pytest.raises(CorruptBuildError, match=r"part-000000000004.*magpie-ray verify"):
        row_ids(storage)


def test_the_messages_of_a_row_are_found_in_every_mode() -> None:
    storage = memory_storage()
    commit(storage, build_of(), 0, 1, config=config_of(only_instruction=True), texts=["Why?"])
    commit(storage, build_of(), 4, 5, config=config_of(n_turns=2), texts=["a", "b", "c", "d"])
    commit(storage, build_of(), 8, 9)
    assert [messages_of(row) for row in read_rows(storage)] == [
        [("user", "Why?")],
        [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")],
        [("user", "Why?"), ("assistant", "Because.")],
    ]


def test_rows_of_other_columns_have_the_messages_that_there_are() -> None:
    row = {"row_id": 1, "instruction": "Why?", "response": "Because."}
    assert messages_of(row) == [("user", "Why?"), ("assistant", "Because.")]
    assert messages_of({"row_id": 1, "difficulty": "easy"}) == []


def test_a_row_by_its_id_is_that_row_or_none() -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=12, grid=3)
    ids = [[row["row_id"] for row in select_rows(storage, limit=n, row=7)] for n in (None, 2, 9)]
    assert ids == [[7], [7, 8], [7, 8, 9, 10, 11]]
    storage.delete("data/part-000000000006.parquet")
    assert list(select_rows(storage, limit=None, row=7)) == []
