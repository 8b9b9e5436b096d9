"""Which rows are wanted: conditions on columns, read a partition at a time."""

import pytest

from magpie_ray.dataset.reader import parse_conditions, select_rows
from magpie_ray.errors import ConfigError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage

COLUMNS = ("row_id", "system_prompt_key", "attempt", "finish_reasons", "system_prompt")
ROW = {
    "row_id": 4,
    "system_prompt_key": "01",
    "attempt": 1,
    "finish_reasons": ["stop", "length"],
    "system_prompt": None,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("attempt=1", True),
        ("attempt=2", False),
        ("attempt=true", False),  # which Python takes for 1
        ("attempt='1'", False),
        ("system_prompt_key=01", True),  # as typed, though YAML reads a number
        ("system_prompt_key='01'", True),
        ("system_prompt_key=1", False),
        ("finish_reasons=length", True),
        ("finish_reasons=stop", True),
        ("finish_reasons=error", False),
        ("system_prompt=null", True),
        ("system_prompt=x", False),
    ],
)
def test_a_condition_compares_a_column_with_a_value(text: str, holds: bool) -> None:
    (condition,) = parse_conditions([text], COLUMNS)
    assert condition.holds(ROW) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("atempt=1", "no column 'atempt'; there are row_id, system_prompt_key"),
        ("attempt", "must be COLUMN=VALUE"),
        ("attempt=", "has no value"),
        ("attempt.x=1", "no column 'attempt.x'"),
        ("attempt=[", "not valid YAML"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_conditions([text], COLUMNS)


def test_rows_are_searched_no_further_than_the_last_that_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=12, grid=3)
    read: list[str] = []
    plain = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, key: read.append(key) or plain(self, key))
    conditions = parse_conditions(["row_id=4"], COLUMNS)
    assert [row["row_id"] for row in select_rows(storage, conditions, limit=1)] == [4]
    assert read == ["data/part-000000000000.parquet", "data/part-000000000003.parquet"]


def test_a_row_by_its_id_is_that_row_or_none() -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=12, grid=3)
    ids = [[row["row_id"] for row in select_rows(storage, (), limit=n, row=7)] for n in (None, 2, 9)]
    assert ids == [[7], [7, 8], [7, 8, 9, 10, 11]]
    storage.delete("data/part-000000000006.parquet")
    assert list(select_rows(storage, (), limit=None, row=7)) == []
