"""What a query may read and do, what its errors say, and that it returns the same rows in the same order."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.database import Database, open_database
from magpie_ray.curation.table_files import TableFile
from magpie_ray.curation.tables import Table, find_table
from magpie_ray.errors import ConfigError, CorruptBuildError, QueryError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    complete_build(Storage(str(tmp_path / "build")))
    (tmp_path / "lines.jsonl").write_text('{"a": 1}\n')
    tables = [
        find_table(name, str(tmp_path / place), {})
        for name, place in (("rows", "build"), ("lines", "lines.jsonl"))
    ]
    with open_database(tables, option="--sql") as opened:
        yield opened


def column(database: Database, sql: str) -> list[object]:
    """The first column of all rows."""
    return [value for batch in database.query(sql).batches for value in batch.column(0).to_pylist()]


def test_a_query_knows_its_columns_before_it_runs(database: Database) -> None:
    result = database.query("SELECT row_id, error('it has run') FROM rows")
    assert result.schema.names[0] == "row_id"
    with pytest.raises(ConfigError, match="it has run"):
        list(result.batches)


@pytest.mark.parametrize(
    "sql",
    [
        "FROM read_text('/etc/hosts')",
        "FROM read_csv('/etc/hosts')",
        "FROM read_blob('/etc/hosts')",
        "FROM '/etc/hosts.parquet'",
        "FROM glob('/etc/*')",
        "FROM parquet_metadata('/etc/hosts')",
        "FROM read_parquet('s3://bucket/x.parquet')",
    ],
)
def test_a_query_reads_no_other_file(database: Database, sql: str) -> None:
    with pytest.raises(ConfigError, match="reads nothing but its tables: rows, lines"):
        list(database.query(sql).batches)


@pytest.mark.parametrize(
    "sql",
    [
        "COPY rows TO '/tmp/x.parquet'",
        "ATTACH '/tmp/x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET threads = 4",
        "CREATE TABLE t AS FROM rows",
        "DROP VIEW rows",
        "PRAGMA version",
        "EXPLAIN SELECT 1",
        "SELECT 1; SELECT 2",
        "-- nothing",
    ],
)
def test_what_is_not_one_select_is_refused(database: Database, sql: str) -> None:
    with pytest.raises(ConfigError, match="--sql: must be one SELECT"):
        database.query(sql)


def test_a_query_sees_no_variable_of_the_program(database: Database) -> None:
    secrets = pa.table({"a": [1]})
    with pytest.raises(ConfigError, match="secrets does not exist"):
        database.query("FROM secrets")
    assert secrets.num_rows == 1


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT atempt FROM rows", 'Referenced column "atempt" not found'),
        ("SELECT * FROM rowz", "Table with name rowz does not exist"),
        ("SELEC 1", "syntax error"),
        ("SELECT response::INT FROM rows", "Could not convert string"),
    ],
)
def test_an_error_has_the_message_of_duckdb_and_the_columns_by_table(
    database: Database, sql: str, says: str
) -> None:
    with pytest.raises(ConfigError, match="--sql: ") as error:
        list(database.query(sql).batches)
    assert says in str(error.value)
    assert "\n  rows: row_id, conversation, instruction, response" in str(error.value)
    assert str(error.value).endswith("\n  lines: row_id, a")


def test_random_numbers_and_times_of_day_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    found = set()
    for zone in ("Asia/Tokyo", "America/New_York"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TZ", zone)
            with open_database([], option="--sql") as database:
                sql = "SELECT concat(random(), TIMESTAMPTZ '2026-01-01 00:00:00+00')"
                found.add(tuple(column(database, sql)))
    assert len(found) == 1
    assert "2026-01-01 00:00:00+00" in next(iter(found))[0]


def large_table(folder: Path, rows: int) -> str:
    """Several row groups with unsorted keys and texts."""
    random = np.random.default_rng(0)
    keys, letters = random.integers(0, 1000, rows), random.integers(97, 123, (rows, 40), dtype=np.uint8)
    texts = [line.tobytes().decode() for line in letters]
    folder.mkdir()
    for start in range(0, rows, 20_000):
        part = slice(start, start + 20_000)
        table = pa.table({"row_id": np.arange(rows)[part], "key": keys[part], "text": texts[part]})
        pq.write_table(table, folder / f"{start:06d}.parquet", row_group_size=5_000)
    return str(folder)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT row_id FROM t",
        "SELECT a.row_id FROM t a JOIN t b ON a.key = b.row_id WHERE b.key < 500",
        "SELECT DISTINCT key FROM t",
        "SELECT any_value(row_id) FROM t GROUP BY key",
        "SELECT row_id FROM t ORDER BY key LIMIT 5000",
        "SELECT row_id FROM t USING SAMPLE 1000 ROWS",
    ],
)
def test_the_same_query_returns_the_same_rows_in_the_same_order(tmp_path: Path, sql: str) -> None:
    place, found = large_table(tmp_path / "t", 60_000), []
    for _ in range(2):
        with open_database([find_table("t", place, {})], option="--sql") as database:
            found.append(column(database, sql))
    assert found[0] == found[1]
    if sql == "SELECT row_id FROM t":
        assert found[0] == list(range(60_000))


def test_a_sort_that_memory_does_not_hold_goes_to_a_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    table = find_table("t", large_table(tmp_path / "t", 200_000), {})
    with open_database([table], option="--sql", memory="300MB") as database:
        texts, spilled = list[object](), 0
        for batch in database.query("SELECT repeat(text, 50) AS a FROM t ORDER BY a").batches:
            texts += batch.column(0).to_pylist()
            spilled += sum(path.stat().st_size for path in (tmp_path / "temporary").rglob("*"))
    assert texts == sorted(texts, key=str)
    assert len(texts) == 200_000
    assert spilled > 0
    assert not list((tmp_path / "temporary").iterdir())


def test_too_little_memory_is_said_with_the_remedy(tmp_path: Path) -> None:
    table = find_table("t", large_table(tmp_path / "t", 60_000), {})
    with (
        open_database([table], option="--sql", memory="1MB") as database,
        pytest.raises(QueryError, match="Give DuckDB more --memory"),
    ):
        list(database.query("SELECT list(text ORDER BY text) FROM t").batches)
    with pytest.raises(ConfigError, match="--memory: got 'much', must be a size such as 4GB"):
        open_database([], option="--sql", memory="much").__enter__()


@pytest.mark.parametrize("reads", [1, 2, 3, 5])
def test_ctrl_c_while_a_file_is_read_is_an_interruption_and_no_error_of_the_query(
    reads: int, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"x": range(300_000)}), tmp_path / "x.parquet", row_group_size=30_000)
    data, left = (tmp_path / "x.parquet").read_bytes(), reads

    def read_range(start: int, stop: int) -> bytes:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return data[start:stop]

    files = (TableFile(name="x.parquet", size=len(data), read_range=read_range),)
    with (
        pytest.raises(KeyboardInterrupt),
        open_database([Table(name="t", url="x", format="Parquet", files=files)], option="--sql") as opened,
    ):
        assert sum(batch.num_rows for batch in opened.query("SELECT * FROM t").batches) == 0
    assert left <= 0


def test_a_query_is_interrupted(database: Database) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    result = database.query("SELECT sum(a.range * b.range % 7) FROM range(10000000) a, range(10000000) b")
    # Where the tests run in the background of a shell, the signal is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(result.batches)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "build")))
    table = find_table("rows", str(tmp_path / "build"), {})
    path = tmp_path / "build" / "data" / "part-000000000004.parquet"
    path.write_bytes(b"x" * path.stat().st_size)
    with (
        open_database([table], option="--sql") as database,
        pytest.raises(CorruptBuildError, match=r"part-000000000004\.parquet"),
    ):
        list(database.query("SELECT * FROM rows").batches)
    path.unlink()
    with (
        open_database([table], option="--sql") as database,
        pytest.raises(Exception, match=r"part-000000000004\.parquet") as error,
    ):
        list(database.query("SELECT * FROM rows").batches)
    assert type(error.value).__module__ == "magpie_ray.errors"
