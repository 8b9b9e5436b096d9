"""What each condition of a query removes, against counting by hand."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.curation.conditions import count_selection
from magpie_ray.curation.database import open_database
from magpie_ray.curation.select import SelectSpec, dry_run, select
from magpie_ray.curation.tables import find_table
from magpie_ray.dataset.layout import SELECTION_KEY
from magpie_ray.dataset.selection_record import Condition, SelectionRecord, TableRows, read_selection
from tests.support.builds import memory_storage

ROWS = {"x": [0, 1, 2, 3, None, 5], "text": ["a", "b", "a", "b", "a", "it's (b"]}
TABLES = (TableRows(name="rows", rows=6), TableRows(name="scores", rows=4))
SCORES = {"row_id": [0, 1, 2, 3], "reward": [0.0, 0.5, 1.0, 1.5]}


@pytest.fixture
def sources(tmp_path: Path) -> Mapping[str, str]:
    for name, columns in (("rows", ROWS), ("scores", SCORES)):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    return {name: str(tmp_path / f"{name}.parquet") for name in ("rows", "scores")}


def counted(sql: str, sources: Mapping[str, str]) -> SelectionRecord:
    return dry_run(SelectSpec(sources=sources, sql=sql, storage_options={})).taken


def failed(taken: SelectionRecord) -> dict[str, tuple[int, int]]:
    return {each.sql: (each.failed, each.failed_alone) for each in taken.conditions}


def test_each_condition_has_its_own_rows_and_null_is_no_yes(sources: Mapping[str, str]) -> None:
    taken = counted("SELECT * FROM rows WHERE x > 1 AND (text = 'a' AND NOT (x = 3 OR x = 7))", sources)
    assert taken.tables == TABLES
    assert (taken.joined, taken.met, taken.kept, taken.uncounted) == (6, 1, 1, "")
    assert failed(taken) == {
        "x > 1": (3, 1),  # 0, 1 and null; 1 and null fail another one, too
        "\"text\" = 'a'": (3, 1),
        "NOT ((x = 3) OR (x = 7))": (2, 0),
    }


def test_rows_that_a_join_drops_are_gone_before_the_conditions(sources: Mapping[str, str]) -> None:
    sql = "SELECT text FROM rows JOIN scores USING (row_id) WHERE reward > 0.1 AND rows.text = 'b' LIMIT 1"
    taken = counted(sql, sources)
    assert (taken.joined, taken.met, taken.kept) == (4, 2, 1)
    assert failed(taken) == {"reward > 0.1": (1, 0), '"rows"."text" = \'b\'': (2, 1)}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM (SELECT *, 1 AS one FROM rows WHERE x > 1 ORDER BY x LIMIT 1) ORDER BY row_id",
        "WITH many AS (SELECT * FROM rows), few AS (SELECT * FROM many WHERE x > 1) SELECT * FROM few",
        "SELECT text, count(*) AS n FROM rows WHERE x > 1 GROUP BY text HAVING count(*) > 1 ORDER BY 1",
        "FROM rows SELECT text WHERE x > 1 USING SAMPLE 1 ROWS",
        "SELECT DISTINCT text FROM rows WHERE x > 1 -- and no more",
        "SELECT text FROM rows WHERE x > 1 QUALIFY row_number() OVER (ORDER BY x) = 1",
    ],
)
def test_what_stands_around_the_conditions_does_not_count(sql: str, sources: Mapping[str, str]) -> None:
    taken = counted(sql, sources)
    assert failed(taken) == {"x > 1": (3, 3)}
    assert (taken.joined, taken.met) == (6, 3)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM rows",
        "SELECT text FROM rows WHERE x > 1 UNION ALL SELECT text FROM rows WHERE x > 2",
        "VALUES (1), (2)",
    ],
)
def test_a_query_of_another_shape_says_so(sql: str, sources: Mapping[str, str]) -> None:
    taken = counted(sql, sources)
    assert taken.uncounted == "the query has no WHERE of its own"
    assert (taken.joined, taken.met, taken.conditions) == (None, None, ())
    assert taken.tables == TABLES


@pytest.mark.parametrize(
    "sql",
    [
        # DuckDB stops at the first condition that does not hold.
        "SELECT text FROM rows WHERE x > 99 AND error(text) IS NULL",
        "SELECT x + 1 AS more FROM rows WHERE more > 3",
    ],
)
def test_conditions_that_do_not_stand_alone_are_no_error(sql: str, sources: Mapping[str, str]) -> None:
    taken = counted(sql, sources)
    assert taken.uncounted.startswith("a condition does not stand alone (")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.sampled_from(["x > 1", "x < 3", "text = 'a'", "x IS NOT NULL", "x IN (SELECT 2)"]),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_the_counts_are_those_of_queries_with_one_condition_each(conditions: list[str]) -> None:
    with open_database([], option="--sql") as database:
        database.set_rows("t", pa.table(ROWS))

        def rows(where: str) -> int:
            return int(database.first_row(f"SELECT count(*) FROM t WHERE {where}")[0])

        taken = count_selection(
            database,
            f"SELECT * FROM t WHERE {' AND '.join(conditions)}",
            ["t"],
            kept=rows(" AND ".join(conditions)),
        )
        assert taken.met == taken.kept
        for one, found in zip(conditions, taken.conditions, strict=True):
            others = [f"({other})" for other in conditions if other != one]
            alone = " AND ".join([f"({one}) IS NOT TRUE", *others])
            assert (found.failed, found.failed_alone) == (rows(f"({one}) IS NOT TRUE"), rows(alone))


def test_what_was_taken_is_recorded_with_the_selection(sources: Mapping[str, str]) -> None:
    one, other = memory_storage(), memory_storage()
    spec = SelectSpec(sources=sources, sql="SELECT text FROM rows WHERE x > 1", storage_options={})
    first = select(one, spec)
    expected = SelectionRecord(
        tables=TABLES,
        kept=3,
        joined=6,
        met=3,
        conditions=(Condition(sql="x > 1", failed=3, failed_alone=3),),
    )
    assert first.taken == expected == read_selection(one) == select(one, spec).taken
    select(other, spec)
    assert one.read(SELECTION_KEY) == other.read(SELECTION_KEY)


def test_a_condition_that_draws_counts_the_same_each_time(sources: Mapping[str, str]) -> None:
    sql = "SELECT text FROM rows WHERE random() < 0.5 AND x >= 0"
    assert counted(sql, sources) == counted(sql, sources)


def test_tables_are_counted_with_the_rows_of_all_their_files(tmp_path: Path) -> None:
    for part in range(3):
        pq.write_table(pa.table({"x": [1, 2]}), tmp_path / f"{part}.parquet")
    table = find_table("t", str(tmp_path), {})
    with open_database([table], option="--sql") as database:
        assert count_selection(database, "SELECT x FROM t", ["t"], kept=6).tables == (
            TableRows(name="t", rows=6),
        )
