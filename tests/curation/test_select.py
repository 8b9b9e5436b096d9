"""A query becomes a data set: its rows, its files, and what the same or another command finds."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.curation.select import SelectSpec, dry_run, read_query, select
from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.layout import SUCCESS_KEY
from magpie_ray.dataset.manifest import is_marked_complete
from magpie_ray.dataset.reader import read_rows
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildMismatchError, ConfigError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage


@pytest.fixture
def rows() -> Storage:
    made = memory_storage()
    complete_build(made, num_rows=10)
    return made


def spec_of(sql: str, sources: Mapping[str, Storage | str], **keys: Any) -> SelectSpec:
    places = {name: place.url if isinstance(place, Storage) else place for name, place in sources.items()}
    return SelectSpec(sources=places, sql=sql, storage_options={}, **keys)


def made(sql: str, sources: Mapping[str, Storage | str], **keys: Any) -> Storage:
    """The data set of a query, in memory."""
    storage = memory_storage()
    select(storage, spec_of(sql, sources, **keys))
    assert verify(storage).problems == ()
    return storage


def column(storage: Storage, name: str) -> list[object]:
    return [row[name] for row in read_rows(storage)]


def digest(storage: Storage) -> list[tuple[str, str]]:
    """The name and hash of every file of rows."""
    return [
        (item.key, hashlib.sha256(storage.read(item.key)).hexdigest())
        for item in storage.list_objects("data")
    ]


def parquet(path: Path, **columns: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_rows_get_new_ids_and_keep_the_old_ones(rows: Storage) -> None:
    selected = made("SELECT * FROM rows WHERE row_id % 3 = 0", {"rows": rows})
    assert column(selected, "row_id") == [0, 1, 2, 3]
    assert column(selected, "source_row_id") == [0, 3, 6, 9]
    kept = [name for name in require_build(selected).columns if name != "source_row_id"]
    assert kept == list(require_build(rows).columns)
    assert column(selected, "conversation") == column(rows, "conversation")[:4]


def test_a_query_may_name_its_own_source_row_id(rows: Storage) -> None:
    selected = made("SELECT row_id, row_id + 100 AS source_row_id, response FROM rows", {"rows": rows})
    assert column(selected, "source_row_id") == list(range(100, 110))
    assert require_build(made("SELECT response FROM rows", {"rows": rows})).columns == ("row_id", "response")


def test_files_have_the_rows_that_were_asked_for(rows: Storage) -> None:
    selected = made("SELECT * FROM rows", {"rows": rows}, rows_per_file=4)
    assert [item.key for item in selected.list_objects("data")] == [
        "data/part-000000000000.parquet",
        "data/part-000000000004.parquet",
        "data/part-000000000008.parquet",
    ]


def test_small_files_become_one(rows: Storage) -> None:
    """Compaction: the rows of three files, in their order."""
    selected = made("SELECT * FROM rows", {"rows": rows})
    assert len(selected.list_objects("data")) == 1
    assert column(selected, "source_row_id") == list(range(10))


def test_two_builds_of_other_models_make_one_set(rows: Storage) -> None:
    other = memory_storage()
    complete_build(other, num_rows=5, texts=("What?", "That."))
    selected = made(
        "SELECT 'a' AS build, * FROM a UNION ALL BY NAME SELECT 'b' AS build, * FROM b",
        {"a": rows, "b": other},
    )
    assert column(selected, "build") == ["a"] * 10 + ["b"] * 5
    assert column(selected, "source_row_id") == [*range(10), *range(5)]
    assert column(selected, "instruction") == ["Why?"] * 10 + ["What?"] * 5


def test_a_selection_is_a_source_of_the_next(rows: Storage) -> None:
    odd = made("SELECT * FROM rows WHERE row_id % 2 = 1", {"rows": rows})
    last = made(
        "SELECT row_id, source_row_id AS first_row_id, response FROM odd ORDER BY row_id DESC LIMIT 2",
        {"odd": odd},
    )
    assert column(last, "first_row_id") == [9, 7]
    assert column(last, "source_row_id") == [4, 3]


def test_tables_are_joined_by_row_id(rows: Storage, tmp_path: Path) -> None:
    scores = parquet(tmp_path / "scores.parquet", row_id=range(10), reward=[i / 10 for i in range(10)])
    selected = made(
        "SELECT * FROM rows JOIN scores USING (row_id) WHERE reward > 0.65", {"rows": rows, "scores": scores}
    )
    assert column(selected, "source_row_id") == [7, 8, 9]


def test_other_files_are_numbered_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"instruction": "3"}\n')
    (tmp_path / "a.jsonl").write_text('{"instruction": "1"}\n{"instruction": "2", "more": [1]}\n')
    selected = made("SELECT * FROM lines", {"lines": str(tmp_path)})
    assert column(selected, "source_row_id") == [0, 1, 2]
    assert column(selected, "instruction") == ["1", "2", "3"]
    assert column(selected, "more") == [None, [1], None]


def test_the_same_command_again_has_nothing_to_do(rows: Storage) -> None:
    storage = memory_storage()
    spec = spec_of("SELECT * FROM rows", {"rows": rows})
    assert select(storage, spec).is_new
    before = [(item.key, item.size) for item in storage.list_objects("")]
    again = select(storage, spec)
    assert (again.is_new, again.rows) == (False, 10)
    assert [(item.key, item.size) for item in storage.list_objects("")] == before


def test_another_query_or_another_source_is_refused(rows: Storage) -> None:
    storage, other = made("SELECT * FROM rows", {"rows": rows}), memory_storage()
    complete_build(other, num_rows=11)
    with pytest.raises(BuildMismatchError, match="sql: the build has"):
        select(storage, spec_of("SELECT * FROM rows LIMIT 3", {"rows": rows}))
    with pytest.raises(BuildMismatchError, match=r"from\.rows: the build has"):
        select(storage, spec_of("SELECT * FROM rows", {"rows": other}))


def test_a_source_that_was_moved_is_the_same_source(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "here")))
    storage = made("SELECT * FROM rows", {"rows": str(tmp_path / "here")})
    (tmp_path / "here").rename(tmp_path / "there")
    assert not select(storage, spec_of("SELECT * FROM rows", {"rows": str(tmp_path / "there")})).is_new


def test_an_interrupted_selection_goes_on_to_the_same_bytes(rows: Storage) -> None:
    spec = spec_of("SELECT * FROM rows", {"rows": rows}, rows_per_file=3)
    whole, cut = memory_storage(), memory_storage()
    select(whole, spec)

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select(cut, spec, finishing=stop)
    assert not is_marked_complete(cut)
    cut.delete("data/part-000000000006.parquet")
    assert select(cut, spec).is_new
    assert digest(cut) == digest(whole)
    assert is_marked_complete(cut)


def test_a_selection_that_was_begun_with_other_memory_is_not_gone_on_with(rows: Storage) -> None:
    """What a join spills decides the order of its rows."""
    storage, spec = memory_storage(), spec_of("SELECT * FROM rows", {"rows": rows})
    select(storage, spec)
    storage.delete(SUCCESS_KEY)
    with pytest.raises(BuildMismatchError, match="--memory 1GB, and DuckDB"):
        select(storage, spec_of(spec.sql, {"rows": rows}, memory="2GB"))


def test_the_card_is_written_before_the_mark_of_success(rows: Storage) -> None:
    storage, marked = memory_storage(), list[bool]()
    select(
        storage,
        spec_of("SELECT * FROM rows", {"rows": rows}),
        finishing=lambda records: marked.append(is_marked_complete(storage)),
    )
    assert marked == [False]


def test_a_dry_run_runs_the_query_and_writes_nothing(rows: Storage) -> None:
    tried = dry_run(spec_of("SELECT * FROM rows, range(2)", {"rows": rows}))
    assert (tried.rows, len(tried.first)) == (20, 10)
    assert tried.bytes > 1000
    assert tried.schema.names[:2] == ["row_id", "source_row_id"]


def test_a_query_without_rows_leaves_the_output_as_it_is(rows: Storage) -> None:
    storage = memory_storage()
    with pytest.raises(ConfigError, match="there are no rows"):
        select(storage, spec_of("SELECT * FROM rows WHERE false", {"rows": rows}))
    assert not storage.list_objects("")


def test_a_source_that_is_not_complete_is_refused(rows: Storage) -> None:
    rows.delete(SUCCESS_KEY)
    with pytest.raises(PreflightError, match="is not complete: let its command end first"):
        made("SELECT * FROM rows", {"rows": rows})
    assert column(made("SELECT * FROM rows", {"rows": f"{rows.url}/data"}), "row_id") == list(range(10))


def test_a_query_is_a_text_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "q.sql").write_text("\nSELECT 1\n")
    assert read_query(str(tmp_path / "q.sql")) == read_query("SELECT 1 ") == "SELECT 1"
    for text in ("", "none.sql"):
        with pytest.raises(ConfigError, match="--sql"):
            read_query(text)


def test_an_output_inside_a_source_is_refused(rows: Storage) -> None:
    inside = Storage(f"{rows.url}/chosen")
    with pytest.raises(ConfigError, match=r"DEST: got .*/chosen, which lies in --from rows \("):
        select(inside, spec_of("SELECT * FROM rows", {"rows": rows}))
    assert not inside.list_objects("")
