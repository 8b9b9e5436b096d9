"""The ready queries of jobs/queries, each over small tables: which rows they take."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.select import SelectSpec, read_query, select
from magpie_ray.dataset.reader import Record, read_rows
from tests.support.builds import memory_storage
from tests.support.paths import ROOT

QUERIES = ROOT / "jobs" / "queries"
Tables = Mapping[str, Mapping[str, list[object]]]

CASES: Mapping[str, tuple[Tables, list[object]]] = {
    # Row 0 is kept; each other row fails one condition.
    "paper_filter": (
        {
            "rows": {
                "row_id": [0, 1, 2, 3, 4, 5],
                "instruction": ["Why?"] * 5 + ["Translate this:"],
                "response": ["long", "long", "long", "long", "cut", "long"],
                "finish_reasons": [["stop", "stop"]] * 4 + [["stop", "length"], ["stop", "stop"]],
            },
            "quality": {
                "row_id": [0, 1, 2, 3, 4, 5],
                "input_quality": ["excellent", "poor", "good", "good", "good", "good"],
            },
            "difficulty": {"row_id": [0, 1, 2, 3, 4, 5], "difficulty": ["easy"] * 6},
            "category": {"row_id": [0, 1, 2, 3, 4, 5], "task_category": ["Math"] * 6},
            "rewards": {
                "row_id": [0, 1, 2, 3, 4, 5],
                "instruct_reward": [3.5, 3.5, -10.5, 3.5, 3.5, 3.5],
            },
            "duplicates": {
                "row_id": [0, 1, 2, 3, 4, 5],
                "min_neighbor_distance": [0.4] * 6,
                "repeat_count": [0, 0, 0, 1, 0, 0],
            },
        },
        [0],
    ),
    # Row 0 is kept; row 1 is poor, row 2 has no label, row 3 repeats another.
    "good_instructions": (
        {
            "rows": {"row_id": [0, 1, 2, 3], "instruction": ["Why?"] * 4},
            "labels": {"row_id": [0, 1, 2, 3], "input_quality": ["good", "poor", None, "excellent"]},
            "duplicates": {"row_id": [0, 1, 2, 3], "repeat_count": [0, 0, 0, 1]},
        },
        [0],
    ),
    # The best answer of row 1 was cut, row 2 has no reward, row 3 lacks the answer that is not its best.
    "best_answer": (
        {
            "rows": {
                "row_id": [0, 1, 2, 3],
                "conversation": [[{"role": "user", "content": "Why?"}]] * 4,
                "responses": [["a", "b"], ["a", "b"], [None, None], [None, "b"]],
                "system_prompt": [None, None, None, "Be brief."],
                "model_name": ["m"] * 4,
                "finish_reasons": [["stop", "stop"], ["stop", "length"], [None, None], [None, "stop"]],
            },
            "scores": {
                "row_id": [0, 1, 2, 3],
                "instruct_reward": [[0.5, 0.1], [0.5, 0.7], [None, None], [None, -3.0]],
            },
        },
        [0, 3],
    ),
    "category_quotas": (
        {
            "rows": {"row_id": [0, 1, 2]},
            "scores": {
                "row_id": [0, 1, 2],
                "task_category": ["Math", "Planning", "Math"],
                "instruct_reward": [1.0, 2.0, 3.0],
            },
        },
        [0, 1, 2],
    ),
    "cut_answers": (
        {"rows": {"row_id": [0, 1, 2], "finish_reasons": [["stop"], ["stop", "length"], ["length", "stop"]]}},
        [1],
    ),
    # Row 1 was cut, and is row 0 of the rows to answer again.
    "answered_again": (
        {
            "rows": {
                "row_id": [0, 1, 2],
                "response": ["a", "b...", None],
                "finish_reasons": [["stop"], ["length"], []],
            },
            "cut": {"row_id": [0], "source_row_id": [1]},
            "longer": {"row_id": [0], "response": ["b and more"], "finish_reasons": [["stop"]]},
        },
        [0, 1, 2],
    ),
    # Row 1 has equal texts, row 2 rewards that are too near.
    "best_against_worst": (
        {
            "rows": {
                "row_id": [0, 1, 2],
                "conversation": [[{"role": "user", "content": "Why?"}]] * 3,
                "responses": [["a", "b", "c"], ["a", "a", "a"], ["a", "b", "c"]],
            },
            "scores": {
                "row_id": [0, 1, 2],
                "instruct_reward": [[0.5, 0.1, 2.0], [0.0, 1.0, 2.0], [0.3, 0.2, 0.1]],
            },
        },
        [0],
    ),
    "several_models": (
        {
            "first": {"row_id": [0, 1], "model_name": ["a", "a"]},
            "second": {"row_id": [0], "model_name": ["b"], "attempt": [1]},
        },
        [0, 1, 0],
    ),
}


def rows_of(sql: str, tables: Tables, folder: Path) -> list[Record]:
    """The rows that a query makes of these tables."""
    for name, columns in tables.items():
        pq.write_table(pa.table(dict(columns)), folder / f"{name}.parquet")
    sources = {name: str(folder / f"{name}.parquet") for name in tables}
    storage = memory_storage()
    select(storage, SelectSpec(sources=sources, sql=sql, storage_options={}))
    return list(read_rows(storage))


@pytest.mark.parametrize("name", sorted(path.stem for path in QUERIES.glob("*.sql")))
def test_a_ready_query_takes_the_rows_that_it_says(name: str, tmp_path: Path) -> None:
    tables, expected = CASES[name]
    found = rows_of(read_query(str(QUERIES / f"{name}.sql")), tables, tmp_path)
    assert [row["source_row_id"] for row in found] == expected


def test_the_filter_keeps_the_longest_answers_in_the_order_of_rows(tmp_path: Path) -> None:
    columns = dict(CASES["paper_filter"][0])
    count, names = 6, ["row_id", "instruction", "response", "finish_reasons"]
    columns["rows"] = dict(
        zip(
            names,
            [
                list(range(count)),
                ["Why?"] * count,
                ["x" * (n % 4 + 1) for n in range(count)],
                [["stop"]] * count,
            ],
            strict=True,
        )
    )
    for name, column, value in (
        ("quality", "input_quality", "good"),
        ("difficulty", "difficulty", "easy"),
        ("category", "task_category", "Math"),
        ("rewards", "instruct_reward", 1.0),
    ):
        columns[name] = {"row_id": list(range(count)), column: [value] * count}
    columns["duplicates"] = {
        "row_id": list(range(count)),
        "min_neighbor_distance": [0.3] * count,
        "repeat_count": [0] * count,
    }
    sql = read_query(str(QUERIES / "paper_filter.sql")).replace("300000", "3")
    assert [row["source_row_id"] for row in rows_of(sql, columns, tmp_path)] == [1, 2, 3]


def test_a_quota_keeps_the_best_of_a_category(tmp_path: Path) -> None:
    tables, _ = CASES["category_quotas"]
    sql = read_query(str(QUERIES / "category_quotas.sql")).replace("50000", "1")
    assert [row["source_row_id"] for row in rows_of(sql, tables, tmp_path)] == [1, 2]


def test_the_best_answer_stands_against_the_worst(tmp_path: Path) -> None:
    tables, _ = CASES["best_against_worst"]
    (pair,) = rows_of(read_query(str(QUERIES / "best_against_worst.sql")), tables, tmp_path)
    assert pair["prompt"] == [{"role": "user", "content": "Why?"}]
    assert pair["chosen"] == [{"role": "assistant", "content": "c"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "b"}]
    assert (pair["score_chosen"], pair["score_rejected"]) == (2.0, 0.1)


def test_the_best_answer_ends_the_conversation(tmp_path: Path) -> None:
    tables, _ = CASES["best_answer"]
    first, last = rows_of(read_query(str(QUERIES / "best_answer.sql")), tables, tmp_path)
    asked = {"role": "user", "content": "Why?"}
    assert first["conversation"] == [asked, {"role": "assistant", "content": "a"}]
    assert last["conversation"] == [asked, {"role": "assistant", "content": "b"}]
    assert (first["instruct_reward"], last["instruct_reward"]) == (0.5, -3.0)
    assert last["system_prompt"] == "Be brief."


def test_what_was_answered_again_has_its_old_number_and_its_new_answer(tmp_path: Path) -> None:
    tables, _ = CASES["answered_again"]
    found = rows_of(read_query(str(QUERIES / "answered_again.sql")), tables, tmp_path)
    assert [row["response"] for row in found] == ["a", "b and more", None]
