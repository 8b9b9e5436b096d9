"""A name of a query stands for a data set or other files, and what identifies them."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.database import open_database
from magpie_ray.curation.tables import find_table, identity_of, parse_tables, table_of_build
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage
from tests.support.s3_server import S3Server


def write(path: Path, **columns: list[object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def rows_of(url: str, options: dict[str, object] | None = None) -> list[dict[str, object]]:
    with open_database([find_table("t", url, options or {})], option="--sql") as database:
        return [row for batch in database.query("SELECT * FROM t").batches for row in batch.to_pylist()]


def test_each_table_has_a_name() -> None:
    assert parse_tables(["rows=s3://b/x=y", "B_2=./z"]) == {"rows": "s3://b/x=y", "B_2": "./z"}


@pytest.mark.parametrize("text", ["s3://b/x", "=x", "2b=x", "a b=x", "a=", "a-b=x"])
def test_what_names_no_table_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be NAME=PATH"):
        parse_tables([text])


def test_a_name_stands_for_one_table() -> None:
    with pytest.raises(ConfigError, match="the name ROWS is given twice"):
        parse_tables(["rows=x", "ROWS=y"])


def test_a_data_set_is_known_by_its_records(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "build"))
    record, _ = complete_build(storage, num_rows=10, grid=4)
    table = find_table("rows", storage.url, {})
    assert [file.name for file in table.files] == [
        storage.display(f"data/part-{start:012d}.parquet") for start in (0, 4, 8)
    ]
    assert identity_of(table)["fingerprint"] == record.fingerprint
    assert identity_of(table)["rows"] == 10
    assert [file.size for file in table_of_build("rows", storage).files] == [
        file.size for file in table.files
    ]
    elsewhere = memory_storage()
    complete_build(elsewhere, num_rows=9, grid=4)
    assert identity_of(find_table("rows", elsewhere.url, {})) != identity_of(table)


@pytest.mark.parametrize("place", ["", "a.parquet", "*.parquet"])
def test_other_files_are_known_by_their_content(tmp_path: Path, place: str) -> None:
    write(tmp_path / "t" / "a.parquet", x=[1, 2, 3])
    url = f"{tmp_path}/t/{place}".rstrip("/")
    before = identity_of(find_table("t", url, {}))
    assert identity_of(find_table("t", url, {})) == before
    write(tmp_path / "t" / "a.parquet", x=[1, 2, 4])
    assert identity_of(find_table("t", url, {})) != before


def test_lines_are_known_by_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"x": 1}\n')
    before = identity_of(find_table("t", str(path), {}))
    path.write_text('{"x": 2}\n')
    assert identity_of(find_table("t", str(path), {})) != before


def test_files_with_more_columns_are_read_together(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", y=["z"], x=[2])
    write(tmp_path / "a.parquet", x=[1])
    assert rows_of(str(tmp_path)) == [{"row_id": 0, "x": 1, "y": None}, {"row_id": 1, "x": 2, "y": "z"}]


def test_a_row_id_of_its_own_stays(tmp_path: Path) -> None:
    assert rows_of(write(tmp_path / "a.parquet", row_id=[7, 9])) == [{"row_id": 7}, {"row_id": 9}]


def test_compressed_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b'{"x": [1.5]}\n{"x": null}\n'))
    assert [row["x"] for row in rows_of(str(tmp_path / "t.jsonl.gz"))] == [[1.5], None]


def test_names_with_the_characters_of_patterns_are_names(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "it's [1] a*b")), num_rows=2)
    table = table_of_build("rows", Storage(str(tmp_path / "it's [1] a*b")))
    with open_database([table], option="--where") as database:
        assert sum(batch.num_rows for batch in database.query("SELECT * FROM rows").batches) == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("t.csv", "is CSV, which has no types"),
        ("t.jsonl.xz", "use gzip or none"),
        ("none.parquet", "no such file or folder"),
        ("t.txt", r"must end in \.parquet"),
    ],
)
def test_files_that_are_no_table_are_refused(tmp_path: Path, name: str, says: str) -> None:
    for other in ("t.csv", "t.jsonl.xz", "t.txt"):
        (tmp_path / other).write_bytes(b"x\n")
    with pytest.raises(PreflightError, match=f"--from t.*{says}"):
        find_table("t", str(tmp_path / name), {})


def test_a_store_is_read_with_its_options(s3_server: S3Server) -> None:
    """No credential reaches DuckDB: the bytes come through fsspec."""
    url, options = f"s3://{s3_server.bucket}/tables", s3_server.storage_options
    storage = Storage(f"{url}/build", options)
    complete_build(storage, num_rows=10, grid=4)
    assert [row["row_id"] for row in rows_of(f"{url}/build", dict(options))] == list(range(10))
    assert [row["row_id"] for row in rows_of(f"{url}/build/data/*.parquet", dict(options))] == list(range(10))
