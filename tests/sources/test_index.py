"""A source is found, before a pass starts: which files, how many rows, what is wrong; and how it may grow."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.dataset import build_record, manifest
from magpie_ray.errors import BuildMismatchError, CorruptBuildError, PreflightError
from magpie_ray.sources.index import SourceIndex, look_at_source
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, commit, complete_build, config_of, finish
from tests.support.s3_server import S3Server
from tests.support.sources import instructions, look, rows_of, texts_of, write_source


def refusal(path: Path | str, *keep: str) -> str:
    with pytest.raises(PreflightError) as caught:
        look(path, *keep)
    return str(caught.value)


def test_a_build_is_found_by_its_record_and_its_fingerprint_is_its_identity(tmp_path: Path) -> None:
    record, _ = complete_build(Storage(str(tmp_path)), num_rows=10, grid=4)
    index = look(tmp_path, "attempt")
    assert (index.kind, index.identity, index.num_rows) == ("build", record.fingerprint, 10)
    assert (index.shape.column, index.shape.one_turn, index.warnings) == ("conversation", True, ())
    assert index.kept_schema == pa.schema([("attempt", pa.int32())])
    assert index.files["rows"].to_pylist() == [4, 4, 2]
    assert "conversation" in index.columns
    assert [row.kept.to_pylist() for row in rows_of(tmp_path, "attempt")] == [[{"attempt": 1}]] * 10


def test_of_a_build_with_a_hole_the_rows_before_it_are_used_and_a_warning_says_so(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record = build_record.open_build(storage, build_of(4))
    for start in (0, 4, 12):
        commit(storage, record, start, start + 4)
    index = look(tmp_path)
    assert index.num_rows == 8
    assert [warning for warning in index.warnings if "lacks the rows 8 to 11" in warning]
    assert [row.row_id for row in rows_of(tmp_path)] == list(range(8))
    commit(storage, record, 8, 12)
    now = look(tmp_path)
    assert now.num_rows == 16
    assert "not complete" in now.warnings[0]
    now.check_grown_from(index)


def test_a_build_without_rows_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    record = build_record.open_build(storage, build_of(4))
    assert "holds no rows from row 0 on" in refusal(tmp_path)
    commit(storage, record, 4, 8)
    assert "holds no rows from row 0 on" in refusal(tmp_path)


def test_a_build_that_grows_keeps_its_rows_and_another_one_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "one"))
    record, records = complete_build(storage, num_rows=8, grid=4)
    before = look(tmp_path / "one")
    finish(storage, record, [*records, commit(storage, record, 8, 12)], 12)
    now = look(tmp_path / "one")
    now.check_grown_from(before)
    with pytest.raises(BuildMismatchError, match=r"000000000008.parquet .4 rows.* now no file"):
        before.check_grown_from(now)
    complete_build(Storage(str(tmp_path / "other")), num_rows=12, config=config_of(seed=7))
    with pytest.raises(BuildMismatchError, match="is another source"):
        look(tmp_path / "other").check_grown_from(before)


def test_a_build_is_found_without_opening_its_files(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path)), num_rows=40, grid=4)
    for path in sorted((tmp_path / "data").glob("*"))[1:]:
        path.write_bytes(bytes(path.stat().st_size))
    assert look(tmp_path).num_rows == 40


def test_a_file_of_another_build_is_named(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    complete_build(storage, num_rows=4, grid=4)
    commit(storage, build_of(4, other=1), 4, 8)
    with pytest.raises(CorruptBuildError, match=r"part-000000000004.parquet belongs to another build"):
        look(tmp_path)


def test_the_folder_of_a_schedule_is_refused_and_its_latest_is_followed(tmp_path: Path) -> None:
    build = Storage(str(tmp_path / "day-1"))
    complete_build(build, num_rows=4)
    (tmp_path / "latest.json").write_text(json.dumps({"path": build.url}))
    assert "holds the builds of a schedule: name one" in refusal(tmp_path)
    assert look(tmp_path / "latest").url == build.url


def test_files_are_numbered_through_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, texts in {"b": ["3"], "a": ["1", "2"], "c/d": ["4", "5"], "a0": []}.items():
        schema = pa.schema([("instruction", pa.string())])
        write_source(tmp_path / f"{name}.parquet", instructions(*texts), schema=schema)
    index = look(tmp_path)
    assert index.files["name"].to_pylist() == ["a.parquet", "a0.parquet", "b.parquet", "c/d.parquet"]
    assert index.files["first_row"].to_pylist() == [0, 2, 2, 3]
    assert [(row.row_id, row.messages) for row in rows_of(tmp_path)] == [
        (number, (("user", str(number + 1)),)) for number in range(5)
    ]
    assert texts_of(tmp_path / "?.parquet") == [["1"], ["2"], ["3"]]
    assert texts_of(tmp_path / "b.parquet") == [["3"]]


def test_files_may_only_get_others_behind_them(tmp_path: Path) -> None:
    write_source(tmp_path / "b.parquet", instructions("1", "2"))
    before = look(tmp_path)
    write_source(tmp_path / "c.parquet", instructions("3"))
    grown = look(tmp_path)
    assert grown.identity == before.identity
    grown.check_grown_from(before)
    write_source(tmp_path / "a.parquet", instructions("0"))
    with pytest.raises(BuildMismatchError, match=r"b.parquet .2 rows.* before, now a.parquet .1 rows"):
        look(tmp_path).check_grown_from(before)
    os.remove(tmp_path / "a.parquet")
    os.remove(tmp_path / "b.parquet")
    with pytest.raises(BuildMismatchError, match=r"b.parquet"):
        look(tmp_path).check_grown_from(before)
    write_source(tmp_path / "b.parquet", instructions("1", "2", "3"))
    with pytest.raises(BuildMismatchError, match=r"b.parquet .2 rows.*now b.parquet .3 rows"):
        look(tmp_path).check_grown_from(before)


def test_the_identity_of_files_is_their_format_shape_and_kept_types(tmp_path: Path) -> None:
    one = write_source(tmp_path / "1.parquet", [{"instruction": "a", "n": 1}])
    others = [
        write_source(tmp_path / "2.jsonl", [{"instruction": "a", "n": 1}]),
        write_source(tmp_path / "3.parquet", [{"instruction": "a", "n": 1.5}]),
        write_source(tmp_path / "4.parquet", [{"messages": '[{"role":"user","content":"a"}]', "n": 1}]),
    ]
    same = write_source(tmp_path / "5.parquet", [{"instruction": "x", "n": 9, "more": 1}] * 3)
    assert look(one, "n").identity == look(same, "n").identity
    assert len({look(path, "n").identity for path in [one, *others]}) == 4
    with pytest.raises(BuildMismatchError, match=r"n: int64 before.*n: double now"):
        look(others[1], "n").check_grown_from(look(one, "n"))


def test_an_index_travels_as_a_few_bytes(tmp_path: Path) -> None:
    write_source(tmp_path / "a.jsonl", [{"instruction": "x" * 10, "tag": ["é"]}] * 3000)
    write_source(tmp_path / "b.jsonl", [{"instruction": "y"}])
    index = look(tmp_path, "tag")
    again = SourceIndex.from_bytes(index.to_bytes())
    assert again == index
    assert again.files["offsets"].to_pylist()[1] == [0]
    for data in (b"", b"no index", index.to_bytes()[:-9]):
        with pytest.raises(CorruptBuildError, match="run the same command again"):
            SourceIndex.from_bytes(data)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"x": [1]}), sink)
    with pytest.raises(CorruptBuildError, match="foreign"):
        SourceIndex.from_bytes(sink.getvalue().to_pybytes())


def test_the_files_beside_the_rows_of_a_hugging_face_data_set_are_overlooked(tmp_path: Path) -> None:
    for number in range(3):
        write_source(tmp_path / "data" / f"train-0000{number}-of-00003.parquet", instructions(str(number)))
    for name in ("README.md", "dataset_infos.json", "notes.json"):
        (tmp_path / name).write_text("{}")
    assert texts_of(tmp_path) == [["0"], ["1"], ["2"]]
    assert look(tmp_path).warnings == ()
    write_source(tmp_path / "data" / "test-00000-of-00001.parquet", instructions("t"))
    assert "has the splits test, train, and all are read" in look(tmp_path).warnings[0]
    assert look(tmp_path / "data" / "train-*.parquet").warnings == ()


def test_what_save_to_disk_wrote_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json"):
        (tmp_path / name).write_text("{}")
    assert "load_from_disk(FOLDER).to_parquet(FILE)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "holds no rows"),
        (
            "a.jsonl",
            '{"text": "x"}\n',
            "line 1 has no messages that can be read: the columns are text",
        ),
        ("a.jsonl", '{"instruction": 7}\n', "instruction is int, must be text"),
        ("a.jsonl", '\n{"instruction": "x"}\n{"instruction": 7}\n', "a.jsonl, line 3: instruction is 7"),
        ("a.jsonl", '{"instruction": "x"}\n{"messages": []}', "line 2: instruction is null"),
        ("a.jsonl", "[1]\n", "the file is one JSON array"),
        ("a.json", '[\n  {"instruction": "x"}\n]', "the file is one JSON array"),
        ("a.jsonl", "7\n", "line 1 holds no object"),
        ("a.jsonl", "{\n", "line 1 is no valid JSON"),
        ("a.jsonl", '{"instruction": "\\ud800"}\n', "half of a surrogate pair"),
        ("a.csv", "instruction\nx\n", "is CSV: write it as Parquet or JSON lines"),
        ("a.txt", "x", "the name of a.txt must end in"),
        ("a.parquet", "x", "a.parquet can't be read as Parquet"),
        ("a.jsonl.gz", "x", "a.jsonl.gz can't be read"),
    ],
)
def test_a_wrong_file_is_refused_by_its_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    assert message in refusal(tmp_path / name)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith("source.path: got ")
    assert "no such file or folder" in refusal(tmp_path / "nowhere")
    assert "source.path" in refusal("nothing-like-this://x/y")


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_kept_column_that_is_missing_is_named(tmp_path: Path, ending: str) -> None:
    path = write_source(tmp_path / f"a.{ending}", [{"instruction": "x", "topic": "y"}])
    message = refusal(path, "topics")
    assert message.startswith("source.keep: got topics")
    assert "there are instruction, topic" in message


def test_a_kept_column_has_one_type_in_all_files(tmp_path: Path) -> None:
    write_source(tmp_path / "a.parquet", [{"instruction": "x", "n": 1}])
    write_source(tmp_path / "b.parquet", [{"instruction": "x", "n": "1"}])
    assert "b.parquet: the column n is string, and int64 in a.parquet" in refusal(tmp_path, "n")


def test_all_parquet_files_have_their_messages_in_the_same_column(tmp_path: Path) -> None:
    write_source(tmp_path / "a.parquet", instructions("x"))
    write_source(tmp_path / "b.parquet", [{"messages": [{"role": "user", "content": "x"}]}])
    assert "b.parquet has its messages in messages, and a.parquet in instruction" in refusal(tmp_path)


def test_the_first_rows_of_each_parquet_file_are_checked_before_anything_starts(tmp_path: Path) -> None:
    write_source(tmp_path / "a.parquet", instructions("x"))
    write_source(tmp_path / "b.parquet", [{"instruction": "x"}, {"instruction": None}])
    assert "b.parquet, row 1: instruction is null" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (7, "instruction is int64, must be text"),
        ([b"x"], "instruction is list"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused(tmp_path: Path, cell: Any, message: str) -> None:
    assert message in refusal(write_source(tmp_path / "a.parquet", [{"instruction": cell}]))


def test_many_files_in_s3_are_looked_at_and_no_credential_shows(s3_server: S3Server) -> None:
    url, options = f"s3://{s3_server.bucket}/{uuid.uuid4().hex}", s3_server.storage_options
    storage = Storage(url, options)
    for number in range(20):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(instructions(str(number)))), sink)
        storage.create(f"{number:02d}.parquet", sink.getvalue().to_pybytes())
    index = look_at_source("source.path", url, options, ())
    assert index.num_rows == 20
    complete_build(Storage(f"{url}/build", options), num_rows=10)
    assert look_at_source("source.path", f"{url}/build", options, ()).kind == "build"
    wrong = {**options, "secret": "very-secret-thing"}
    with pytest.raises(PreflightError) as caught:
        look_at_source("source.path", "s3://no-such-bucket-here/x", wrong, ())
    assert "very-secret-thing" not in str(caught.value)
    assert manifest.is_marked_complete(Storage(f"{url}/build", options))
