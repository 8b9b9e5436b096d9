"""A condition picks rows or rejects, in their order, in the language of select."""

from collections.abc import Iterator

import pytest

from magpie_ray.curation.where import rejects_where, rows_where
from magpie_ray.dataset.rejects import Reject
from magpie_ray.errors import BuildNotFoundError, ConfigError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage


@pytest.fixture
def rows() -> Storage:
    made = memory_storage()
    complete_build(made, num_rows=10)
    return made


def ids(records: Iterator[dict[str, object]]) -> list[object]:
    return [record["row_id"] for record in records]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("row_id % 4 = 1", [1, 5, 9]),
        ("row_id < 2 OR row_id = 7", [0, 1, 7]),
        ("'length' = ANY(finish_reasons)", []),
        ("response LIKE 'Bec%' AND system_prompt IS NULL AND row_id = 3 -- a comment", [3]),
        ("row_id = (SELECT max(row_id) FROM rows)", [9]),
        ("row_id IN (SELECT 8 - row_id FROM rows)", list(range(9))),
    ],
)
def test_the_rows_for_which_it_holds_come_in_order(
    rows: Storage, condition: str, expected: list[object]
) -> None:
    assert ids(rows_where(rows, condition)) == expected


def test_rows_are_as_a_reader_gets_them(rows: Storage) -> None:
    (row,) = rows_where(rows, "row_id = 4")
    assert row["conversation"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
    ]


def test_a_part_of_the_rows_is_looked_at(rows: Storage) -> None:
    assert ids(rows_where(rows, "true", first_row=3, limit=2)) == [3, 4]
    assert ids(rows_where(rows, "true OR true", first_row=3, last_row=3)) == [3]


def test_the_rows_so_far_of_a_build_are_enough() -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=4)
    storage.delete("_SUCCESS")
    assert ids(rows_where(storage, "true")) == [0, 1, 2, 3]
    storage.delete("data/part-000000000000.parquet")
    assert list(rows_where(storage, "true")) == []
    with pytest.raises(BuildNotFoundError):
        list(rows_where(memory_storage(), "true"))


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("atempt = 2", 'Referenced column "atempt" not found'),
        ("attempt = 2)", "syntax error"),
        ("response = because", "Text stands in single quotes. The columns that there are:\n  rows: row_id, "),
        ("response = (SELECT content FROM read_text('/etc/hosts'))", "reads nothing but its tables: rows"),
        ("true; SELECT 1", "syntax error"),
    ],
)
def test_a_condition_that_is_refused_is_explained(rows: Storage, condition: str, says: str) -> None:
    with pytest.raises(ConfigError, match="--where: ") as error:
        list(rows_where(rows, condition))
    assert says in str(error.value)


def reject_of(row_id: int, text: str = "No.") -> Reject:
    return {
        "row_id": row_id,
        "attempt": 1,
        "turn": 1,
        "role": "user",
        "reason": "empty",
        "system_prompt": None,
        "system_prompt_key": None,
        "input_id": None,
        "messages": [{"role": "user", "content": "Why?"}],
        "text": text,
    }


def test_rejects_are_picked_by_the_same_language() -> None:
    rejects = [reject_of(number, text="\ud800" if number == 4999 else "No.") for number in range(5000)]
    picked = list(rejects_where(rejects, "row_id % 1000 = 999 AND len(messages) = 1"))
    assert picked == [rejects[999], rejects[1999], rejects[2999], rejects[3999], rejects[4999]]
    assert picked[-1]["text"] == "\ud800"
    assert list(rejects_where([], "role = 'user'")) == []


def test_a_condition_on_rejects_looks_at_one_of_them() -> None:
    with pytest.raises(ConfigError, match="must do without SELECT"):
        list(rejects_where([reject_of(1)], "row_id = (SELECT max(row_id) FROM rows)"))
    with pytest.raises(ConfigError, match="rows: place, row_id, attempt, turn, role, reason"):
        list(rejects_where([reject_of(1)], "rol = 'user'"))
