"""Tables of users: which files count, what their rows are, and how a mistake is told."""

import bz2
import datetime
import gzip
import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.batches import Wanted
from magpie_ray.inputs.blocks import InputBlocks
from magpie_ray.inputs.scan import changes, scan
from magpie_ray.inputs.source import open_source
from tests.support.builds import memory_storage
from tests.support.inputs import copied, scanned, write_table
from tests.support.s3_server import S3Server

ROWS = [
    {"system_prompt": "You are kind.", "topic": "bees", "age": 30},
    {"system_prompt": 'Say "hi",\nplease; ✓', "topic": "a, b", "age": -4},
    {"system_prompt": None, "topic": None, "age": None},
]


def refusal(path: Path | str, *keep: str, **names: Any) -> str:
    with pytest.raises(PreflightError) as caught:
        scanned(path, *keep, **names)
    return str(caught.value)


def loaded(path: Path, *keep: str, **settings: Any) -> list[tuple[str | None, dict[str, Any]]]:
    storage = memory_storage()
    index = copied(storage, path, *keep, **settings)
    blocks = InputBlocks(storage, index, seed=0, pick="in_order")
    return [
        (one.prompt, one.input.kept.to_pylist()[0] if keep else {})
        for one in blocks.load(range(index.inputs))
    ]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".ndjson", ".json", ".csv"])
def test_each_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = write_table(tmp_path / f"rows{ending}", ROWS) if ending != ".csv" else tmp_path / "rows.csv"
    if ending == ".csv":
        path.write_text(
            "system_prompt,topic,age\r\nYou are kind.,bees,30\r\n"
            '"Say ""hi"",\nplease; ✓","a, b",-4\r\n,,\r\n,x,\r\n'
        )
    rows = loaded(path, "topic", "age")
    assert rows[:2] == [
        (row["system_prompt"], {"topic": row["topic"], "age": row["age"]}) for row in ROWS[:2]
    ]
    assert rows[2:] == (
        [(None, {"topic": "x", "age": None})] if ending == ".csv" else [(None, {"topic": None, "age": None})]
    )
    assert scanned(path, "age").kept_schema.field("age").type == pa.int64()


def test_files_of_a_folder_and_of_a_glob_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c/a", "B"):
        write_table(tmp_path / "in" / f"{name}.jsonl", [{"system_prompt": name}])
    for name in ("_SUCCESS", ".hidden.jsonl", "_old/x.jsonl", "README.md"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("no row")
    assert [prompt for prompt, _ in loaded(tmp_path / "in")] == ["B", "a", "b", "c/a"]
    assert [prompt for prompt, _ in loaded(tmp_path / "in" / "[ab].jsonl")] == ["a", "b"]
    assert [file.name for file in scanned(tmp_path / "*" / "?.jsonl").files] == [
        f"in/{name}.jsonl" for name in "Bab"
    ]


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_compressed_text_is_read(tmp_path: Path, ending: str, pack: Any) -> None:
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(pack(b'{"system_prompt": "packed"}\n'))
    assert loaded(path) == [("packed", {})]


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_a_spreadsheet_may_write_other_marks_between_its_cells_and_a_byte_order_mark(
    tmp_path: Path, mark: str
) -> None:
    path = tmp_path / "sheet.csv"
    path.write_bytes(
        b"\xef\xbb\xbf" + f"topic{mark}system_prompt\nBienen{mark}Sei freundlich, bitte.\n".encode()
    )
    assert loaded(path, "topic") == [("Sei freundlich, bitte.", {"topic": "Bienen"})]


@pytest.mark.parametrize(
    ("cells", "kind", "values"),
    [
        (["1", "-20", ""], pa.int64(), [1, -20, None]),
        (["007", "8"], pa.string(), ["007", "8"]),
        (["1", "2.5", "0.0"], pa.float64(), [1.0, 2.5, 0.0]),
        (["1.10", "1.1"], pa.string(), ["1.10", "1.1"]),
        (["12e5", "7"], pa.string(), ["12e5", "7"]),
        (["0.1234567890123456"], pa.string(), ["0.1234567890123456"]),
        (["true", "FALSE"], pa.bool_(), [True, False]),
        (["2020-01-01", "x"], pa.string(), ["2020-01-01", "x"]),
        (["", ""], pa.string(), [None, None]),
        (["99999999999999999999"], pa.string(), ["99999999999999999999"]),
    ],
)
def test_cells_of_csv_are_numbers_where_nothing_is_lost(
    tmp_path: Path, cells: list[str], kind: pa.DataType, values: list[Any]
) -> None:
    rows = [{"system_prompt": "p", "x": cell} for cell in cells]
    path = write_table(tmp_path / "cells.csv", rows)
    assert scanned(path, "x").kept_schema.field("x").type == kind
    assert [kept["x"] for _, kept in loaded(path, "x")] == values


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        ([1, 2.5, None], [1.0, 2.5, None]),
        ([{"a": 1}, {"b": "x"}], [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([[1], [], None], [[1], [], None]),
        (["2020-01-01", "x"], ["2020-01-01", "x"]),
        ([True, None], [True, None]),
    ],
)
def test_values_of_json_keep_their_types_over_batches(
    tmp_path: Path, cells: list[Any], values: list[Any]
) -> None:
    path = write_table(tmp_path / "cells.jsonl", [{"system_prompt": "p", "x": cell} for cell in cells])
    assert [kept["x"] for _, kept in loaded(path, "x", batch_rows=1)] == values


TYPED = pa.table(
    {
        "system_prompt": pa.array(["a", None, "c"], pa.large_string()),
        "i8": pa.array([1, None, 3], pa.int8()),
        "when": pa.array([datetime.datetime(2026, 1, 2, 3, 4, 5, 6)] * 3, pa.timestamp("us", "UTC")),
        "nanos": pa.array([1, 2, None], pa.timestamp("ns")),
        "money": pa.array([Decimal("1.20"), None, Decimal("-3.45")], pa.decimal128(10, 2)),
        "bytes": pa.array([b"\xff\x00", None, b""], pa.binary()),
        "half": pa.array([1.5, None, 2.5], pa.float16()),
        "tags": pa.array([["x"], [], None], pa.list_(pa.string())),
        "vector": pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2)),
        "pair": pa.array([{"a": 1, "b": ["z"]}, None, {"a": None, "b": None}]),
        "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int32())),
        "day": pa.array([1, 2, 3], pa.date32()),
        "time": pa.array([1, None, 3], pa.time64("us")),
        "span": pa.array([1, None, 3], pa.duration("ms")),
        "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
    }
)


def test_every_type_of_parquet_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "typed.parquet"
    pq.write_table(TYPED, path, row_group_size=2)
    names = TYPED.column_names[1:]
    storage = memory_storage()
    blocks = InputBlocks(storage, copied(storage, path, *names), seed=0, pick="in_order")
    kept = pa.Table.from_batches([one.input.kept for one in blocks.load(range(3))])
    expected = pq.read_table(path).select(names)
    for name in names:
        column = expected.column(name).combine_chunks()
        plain = column.dictionary_decode() if name == "kind" else column
        assert kept.column(name).combine_chunks().equals(plain), name
    pq.write_table(kept, tmp_path / "again.parquet")
    assert pq.read_table(tmp_path / "again.parquet").schema.equals(kept.schema)


@pytest.mark.parametrize(
    ("view", "plain", "value"),
    [
        (pa.string_view(), pa.string(), "x"),
        (pa.binary_view(), pa.binary(), b"x"),
        (pa.list_(pa.string_view()), pa.list_(pa.string()), ["x", None]),
        (pa.struct([("a", pa.string_view())]), pa.struct([("a", pa.string())]), {"a": "x"}),
    ],
    ids=str,
)
def test_views_of_texts_are_kept_as_texts(
    tmp_path: Path, view: pa.DataType, plain: pa.DataType, value: object
) -> None:
    prompts = pa.array(["a", "b"], pa.string_view())
    table = pa.table({"system_prompt": prompts, "k": pa.array([None, value], view)})
    pq.write_table(table, tmp_path / "x.parquet")
    assert scanned(tmp_path / "x.parquet", "k").kept_schema.field("k").type == plain
    assert loaded(tmp_path / "x.parquet", "k") == [("a", {"k": None}), ("b", {"k": value})]


def test_only_the_used_content_is_in_the_digest_and_all_of_it_is(tmp_path: Path) -> None:
    def digest(rows: Any, *keep: str, name: str = "a.parquet", **names: Any) -> str:
        return scanned(write_table(tmp_path / name, rows), *keep, **names).content

    rows = [{"system_prompt": f"p{i}", "x": i, "unused": i, "w": 1.0} for i in range(20)]
    first = digest(rows, "x")
    assert digest([{**row, "unused": 0} for row in rows], "x") == first
    assert digest([{k: row[k] for k in reversed(row)} for row in rows], "x", name="b.jsonl") == first
    assert digest([{**row, "system_prompt": row["system_prompt"] or ""} for row in rows], "x") == first
    for other in (
        rows[::-1],
        rows[:-1],
        [*rows, rows[0]],
        [{**row, "system_prompt": "p"} for row in rows],
        [{**row, "x": str(row["x"])} for row in rows],
        [{**rows[0], "x": None}, *rows[1:]],
    ):
        assert digest(other, "x") != first
    weighted = digest(rows, "x", weight="w")
    assert weighted != first
    assert digest([{**rows[0], "w": 1.5}, *rows[1:]], "x", weight="w") != weighted


@settings(max_examples=30, deadline=None)
@given(
    texts=st.lists(
        st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=9)),
        min_size=1,
        max_size=30,
    ),
    rows=st.integers(1, 9),
)
def test_the_digest_does_not_depend_on_how_rows_are_cut_into_batches(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str | None], rows: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    path = write_table(folder / "a.jsonl", [{"system_prompt": text, "x": text} for text in texts])
    assert scanned(path, "x", batch_rows=rows) == scanned(path, "x")


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        (
            "a.csv",
            "prompt,topic\nx,y\n",
            "inputs.system_prompt: got system_prompt, but a.csv has no such column; there are prompt, topic",
        ),
        (
            "a.jsonl",
            '{"prompt": "x"}\n',
            "inputs.system_prompt: got system_prompt, but a.jsonl has no such column; there are prompt",
        ),
        (
            "a.jsonl",
            '{"system_prompt": "x"}\n{"system_prompt": 5}\n',
            "a.jsonl, line 2: system_prompt is 5, must be text or null",
        ),
        ("a.jsonl", '{"system_prompt": "x"}\n\n{"system_prompt": \n', "a.jsonl, line 3 is no valid JSON"),
        ("a.jsonl", '[{"system_prompt": "x"}]\n', "a.jsonl, line 1 holds no object"),
        ("a.jsonl", '{"system_prompt": "\\ud800"}\n', "a.jsonl, line 1 holds half of a surrogate pair"),
        (
            "a.csv",
            "system_prompt,b\nx,y\nx,y,z\n",
            "a.csv, line 3 has 3 cells, and the first line names 2 columns",
        ),
        ("a.csv", 'system_prompt,b\nx,y\n"two\nlines",y\nz\n', "a.csv, line 5 has 1 cells"),
        ("a.csv", 'system_prompt,b\n"x,y\n', "a.csv, line 2 is no valid CSV"),
        ("a.csv", 'system_prompt,b\nx,"y"z\n', "a.csv, line 2 is no valid CSV"),
        ("a.csv", "system_prompt,system_prompt\nx,y\n", "a.csv, line 1 names the column system_prompt twice"),
        ("a.csv", "system_prompt\n", "inputs.path: got "),
        ("a.jsonl", "", "has no such column; there are none"),
        ("a.csv", "", "has no such column; there are none"),
        ("a.txt", "x", "the name of a.txt must end in .parquet, .jsonl or .csv"),
        ("a.parquet", "no Parquet", "a.parquet can't be read: ArrowInvalid"),
        ("a.parquet.gz", "no Parquet", "must end in .parquet, .jsonl or .csv"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_line(tmp_path: Path, name: str, text: str, named: str) -> None:
    (tmp_path / name).write_text(text)
    assert named in refusal(tmp_path / name)


def test_text_that_is_no_utf_8_is_refused_by_line_and_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"system_prompt\nok\nGr\xfc\xdfe\n")
    assert "a.csv, line 3 is not UTF-8 (byte 2 of the line): save the file as UTF-8" in refusal(
        tmp_path / "a.csv"
    )
    (tmp_path / "a.jsonl").write_bytes(b'{"system_prompt": "\xff"}\n')
    assert "a.jsonl, line 1 is not UTF-8" in refusal(tmp_path / "a.jsonl")
    for name in ("system_prompt", "x"):
        texts = pa.array([b"ok", b"ok", b"\xff\xfe"]).view(pa.string())
        table = pa.table({"system_prompt": texts if name == "system_prompt" else ["a"] * 3, "x": texts})
        pq.write_table(table, tmp_path / "a.parquet")
        assert f"a.parquet, row 2: {name} holds text that is not UTF-8" in refusal(
            tmp_path / "a.parquet", "x"
        )


@pytest.mark.parametrize("weight", [0.0, -1.0, None, float("nan"), float("inf")])
@pytest.mark.parametrize("ending", [".parquet", ".jsonl"])
def test_a_weight_that_is_not_positive_is_refused_by_its_row(
    tmp_path: Path, weight: Any, ending: str
) -> None:
    rows = [{"system_prompt": "x", "w": 1.0}, {"system_prompt": "y", "w": weight}]
    where = "row 1" if ending == ".parquet" else "line 2"
    said = refusal(write_table(tmp_path / f"a{ending}", rows), weight="w")
    assert f"a{ending}, {where}: w is {weight!r}, must be a number above 0" in said


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "a.csv", [{"system_prompt": "x", "w": "1"}, {"system_prompt": "y", "w": "much"}]
    )
    assert "a.csv, line 3: w is 'much', no number" in refusal(path, weight="w")
    path = write_table(tmp_path / "a.jsonl", [{"system_prompt": "x", "w": True}])
    assert "a.jsonl, line 1: w is True, must be a number" in refusal(path, weight="w")
    path = write_table(tmp_path / "a.parquet", [{"system_prompt": "x", "w": "1"}])
    assert "inputs.weight: got w, which is string in a.parquet, must be a column of numbers" in refusal(
        path, weight="w"
    )


def test_a_prompt_column_of_another_type_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", [{"system_prompt": 5}])
    assert "inputs.system_prompt: got system_prompt, which is int64 in a.parquet" in refusal(path)


def test_files_whose_columns_differ_are_refused_by_both_names(tmp_path: Path) -> None:
    write_table(tmp_path / "in/a.parquet", [{"system_prompt": "x", "n": 1}])
    write_table(tmp_path / "in/b.parquet", [{"system_prompt": "x", "n": "one"}])
    assert "b.parquet: the column n is string, and int64 in a.parquet" in refusal(tmp_path / "in", "n")
    write_table(
        tmp_path / "mixed/a.jsonl", [{"system_prompt": "x", "n": 1}, {"system_prompt": "x", "n": "one"}]
    )
    assert "a.jsonl, line 1 and later: the values of n have no type in common" in refusal(
        tmp_path / "mixed", "n"
    )
    write_table(tmp_path / "other/a.csv", [{"system_prompt": "x"}])
    write_table(tmp_path / "other/b.jsonl", [{"system_prompt": "x"}])
    assert "where a.csv is CSV and b.jsonl is JSON lines: keep one format" in refusal(tmp_path / "other")


def test_a_column_that_parquet_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.jsonl", [{"system_prompt": "x", "empty": {}}])
    assert "inputs.keep: the column empty is struct<>, which Parquet can't hold" in refusal(path, "empty")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("nothing.csv", "but there is no such file or folder"),
        ("*.csv", "which holds no file to read"),
        ("", "which holds no file to read"),
        ("s3://no-such-bucket-of-ours/x", "inputs.path: s3://no-such-bucket-of-ours/x can't be listed"),
        ("nonsense://x/y", "inputs.path: nonsense://x/y can't be listed"),
    ],
)
def test_a_place_without_inputs_is_refused(
    tmp_path: Path, url: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    said = refusal(url if "://" in url else f"{tmp_path}/{url}")
    assert named in said
    if url.startswith("s3"):
        assert (
            "Give credentials: in the environment, by an instance role, or in inputs.storage_options." in said
        )


def test_files_that_have_changed_are_named(tmp_path: Path) -> None:
    for name in "abc":
        write_table(tmp_path / f"{name}.jsonl", [{"system_prompt": name}])
    before = scanned(tmp_path).files
    assert list(changes(before, scanned(tmp_path).files)) == []
    write_table(tmp_path / "a.jsonl", [{"system_prompt": "a"}, {"system_prompt": "more"}])
    (tmp_path / "b.jsonl").unlink()
    write_table(tmp_path / "d.jsonl", [{"system_prompt": "d"}])
    assert sorted(changes(before, scanned(tmp_path).files)) == [
        "a.jsonl has changed (inputs: 1 before, 2 now)",
        "b.jsonl is missing",
        "d.jsonl was added",
    ]


def test_a_source_that_changes_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    from magpie_ray.inputs.copy import ensure_copy, read_index

    path = write_table(tmp_path / "a.jsonl", [{"system_prompt": "x", "n": 1}])
    inputs, storage = scanned(path, "n"), memory_storage()
    write_table(path, [{"system_prompt": "x", "n": "one"}])
    with pytest.raises(PreflightError, match="has changed since this command began to read it"):
        ensure_copy(
            storage,
            open_source("inputs.path", str(path), {}),
            Wanted(prompt="system_prompt", keep=("n",)),
            inputs,
        )
    assert read_index(storage) is None


def test_whole_numbers_that_fractions_beside_them_would_change_are_refused(tmp_path: Path) -> None:
    path = write_table(
        tmp_path / "a.jsonl", [{"system_prompt": "x", "n": 2**60 + 1}, {"system_prompt": "x", "n": 1.5}]
    )
    with pytest.raises(PreflightError, match=r"n have no type in common .*write them as texts"):
        scanned(path, "n", batch_rows=1)


def test_dictionaries_inside_of_kept_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    tags = pa.array([["a"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    pq.write_table(pa.table({"system_prompt": ["x"], "tags": tags}), path)
    with pytest.raises(PreflightError, match=r"inputs\.keep: the column tags .*plain values"):
        scanned(path, "tags")


def test_a_copy_is_made_once_and_the_first_one_stays(tmp_path: Path) -> None:
    path, storage = write_table(tmp_path / "a.jsonl", [{"system_prompt": "x"}]), memory_storage()
    first = copied(storage, path)
    objects = storage.list_objects("_magpie")
    assert copied(storage, path) == first
    assert storage.list_objects("_magpie") == objects
    files = json.loads(storage.read("_magpie/inputs/files.json"))
    assert [file["name"] for file in files] == ["a.jsonl"]


def test_a_bucket_is_read_with_storage_options_and_refuses_others(
    s3_server: S3Server, tmp_path: Path
) -> None:
    client, bucket = s3_server.client(), s3_server.bucket
    for name in "ab":
        for ending in (".parquet", ".csv"):
            path = write_table(tmp_path / f"{name}{ending}", [{"system_prompt": name * 9, "x": 1}] * 20)
            client.put_object(Bucket=bucket, Key=f"prompts/{ending[1:]}/{path.name}", Body=path.read_bytes())
    wanted, options = Wanted(prompt="system_prompt", keep=("x",)), s3_server.storage_options
    for url in (f"s3://{bucket}/prompts/parquet", f"s3://{bucket}/prompts/*/*.csv"):
        found = scan(open_source("inputs.path", url, options), wanted)
        assert (found.number, [file.inputs for file in found.files]) == (40, [20, 20])
    with pytest.raises(PreflightError, match="there is no such file or folder"):
        open_source("inputs.path", f"s3://{bucket}/nothing", options)
    with pytest.raises(
        PreflightError, match=r"inputs\.path: s3://no-bucket-of-ours/x can't be listed|no such"
    ):
        open_source("inputs.path", "s3://no-bucket-of-ours/x", options)


@pytest.mark.parametrize("place", [".", "pipe.jsonl"])
def test_a_pipe_is_refused_by_name_and_not_waited_for(tmp_path: Path, place: str) -> None:
    write_table(tmp_path / "a.jsonl", [{"system_prompt": "a"}])
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(PreflightError, match=r"where pipe\.jsonl is no regular file"):
        open_source("inputs.path", str(tmp_path / place), {})
