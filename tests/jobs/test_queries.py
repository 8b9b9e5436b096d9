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
                "row_id": [0, 1, 2, 3, 4],
                "response": ["long", "long", "long", "long", "cut"],
                "finish_reasons": [["stop", "stop"]] * 4 + [["stop", "length"]],
            },
            "scores": {
                "row_id": [0, 1, 2, 3, 4],
                "input_quality": ["excellent", "poor", "good", "good", "good"],
                "difficulty": ["easy"] * 5,
                "task_category": ["Math"] * 5,
                "instruct_reward": [3.5, 3.5, -10.5, 3.5, 3.5],
            },
            "duplicates": {
                "row_id": [0, 1, 2, 3, 4],
                "min_neighbor_distance": [0.4] * 5,
                "repeat_count": [0, 0, 0, 1, 0],
            },
        },
        [0],
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
    count, names = 6, ["row_id", "response", "finish_reasons"]
    columns["rows"] = dict(
        zip(
            names,
            [list(range(count)), ["x" * (n % 4 + 1) for n in range(count)], [["stop"]] * count],
            strict=True,
        )
    )
    columns["scores"] = {
        "row_id": list(range(count)),
        "input_quality": ["good"] * count,
        "difficulty": ["easy"] * count,
        "task_category": ["Math"] * count,
        "instruct_reward": [1.0] * count,
    }
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
