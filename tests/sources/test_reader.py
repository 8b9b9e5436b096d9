"""Rows of a source: each as it was written, whatever the format; and no more is read than is needed."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magpie_ray.errors import SourceError, StorageError
from magpie_ray.sources.index import look_at_source
from magpie_ray.sources.reader import SourceReader, SourceRow, read_all
from magpie_ray.storage.retries import Patience
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, config_of
from tests.support.s3_server import FaultProxy, S3Server
from tests.support.sources import Records, instructions, look, rows_of, write_source

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
shown = texts.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: Callable[..., Any]) -> tuple[str | None, list[tuple[str, str]]]:
    roles = ["user", "assistant"] * 3
    messages = [(role, draw(shown if role == "user" else texts)) for role in roles[: draw(st.integers(1, 6))]]
    return draw(st.none() | shown), messages


def as_openai(system: str | None, messages: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    before = [] if system is None else [("system", system)]
    return [{"role": role, "content": text} for role, text in [*before, *messages]]


def as_sharegpt(system: str | None, messages: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt"}
    return [
        {"from": names.get(one["role"], one["role"]), "value": one["content"]}
        for one in as_openai(system, messages)
    ]


SHAPES: dict[str, Callable[[str | None, Sequence[tuple[str, str]]], dict[str, Any]]] = {
    "conversation": lambda system, messages: {
        "conversation": as_openai(None, messages),
        "system_prompt": system,
    },
    "messages": lambda system, messages: {"messages": as_openai(system, messages)},
    "conversations": lambda system, messages: {"conversations": as_sharegpt(system, messages)},
    "text": lambda system, messages: {"conversations": json.dumps(as_sharegpt(system, messages))},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.ndjson.gz", "a.json.bz2"])
@given(rows=st.lists(conversations(), min_size=1, max_size=20))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_of_every_shape_and_format_are_as_they_were_written(
    tmp_path: Path, shape: str, name: str, rows: list[tuple[str | None, list[tuple[str, str]]]]
) -> None:
    records = [{**SHAPES[shape](*row), "n": number} for number, row in enumerate(rows)]
    path = write_source(tmp_path / shape / name, records)
    assert [
        (row.row_id, row.system_prompt, list(row.messages), row.kept.to_pylist() if row.kept else None)
        for row in rows_of(path, "n")
    ] == [(number, system, messages, [{"n": number}]) for number, (system, messages) in enumerate(rows)]


@pytest.mark.parametrize("only_instruction", [False, True])
def test_rows_of_a_build_are_those_that_were_generated(tmp_path: Path, only_instruction: bool) -> None:
    config = config_of(only_instruction=only_instruction)
    messages = ("Why?",) if only_instruction else ("Why?", "Because.")
    complete_build(Storage(str(tmp_path)), num_rows=10, grid=4, texts=messages, config=config)
    expected = tuple(zip(("user", "assistant"), messages, strict=False))
    assert [(row.row_id, row.messages) for row in rows_of(tmp_path)] == [(i, expected) for i in range(10)]


def test_several_answers_come_with_the_row(tmp_path: Path) -> None:
    records = [{"instruction": f"q{i}", "responses": [f"a{i}", f"b{i}"]} for i in range(3)]
    for name in ("a.parquet", "a.jsonl"):
        rows = rows_of(write_source(tmp_path / name, records))
        assert [row.responses for row in rows] == [(f"a{i}", f"b{i}") for i in range(3)]
        assert rows[0].messages == (("user", "q0"),)


def numbered(count: int, *, width: int = 0) -> Records:
    return [{"instruction": f"{i} " + "x" * width, "n": i} for i in range(count)]


def first_words(rows: Sequence[SourceRow]) -> list[int]:
    return [int(row.messages[0][1].split()[0]) for row in rows]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, records = tmp_path_factory.mktemp("places"), numbered(5000)
    parts = [records[:5], records[5:2600], records[2600:2601], records[2601:]]
    return {
        path.parent.name: path.parent
        for ending in ("parquet", "jsonl", "jsonl.gz")
        for i, part in enumerate(parts)
        for path in [write_source(folder / ending / f"{i}.{ending}", part, row_group_size=900)]
    }


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz"])
@given(loads=st.lists(st.lists(st.integers(0, 4999), max_size=30), max_size=6))
@settings(max_examples=20)
def test_any_rows_are_loaded_in_the_order_that_is_asked_for(
    places: dict[str, Path], ending: str, loads: list[list[int]]
) -> None:
    reader = SourceReader(look(places[ending], "n"), {}, ["n"], cache_bytes=100_000)
    for rows in loads:
        loaded = reader.load(rows)
        assert [row.row_id for row in loaded] == first_words(loaded) == rows
        assert [row.kept.column("n")[0].as_py() for row in loaded if row.kept] == rows
    reader.close()


@given(first_row=st.integers(0, 5001))
@settings(max_examples=10)
def test_all_rows_are_read_in_order_from_any_row_on(places: dict[str, Path], first_row: int) -> None:
    rows = read_all(look(places["jsonl"]), {}, first_row=first_row)
    assert first_words(list(rows)) == list(range(first_row, 5000))


def test_rows_that_are_not_there_and_columns_that_were_not_looked_at_are_bugs(tmp_path: Path) -> None:
    index = look(write_source(tmp_path / "a.parquet", numbered(3)))
    with pytest.raises(ValueError, match=r"rows 1\.\.3 of a source of 3 rows"):
        SourceReader(index, {}).load([1, 3])
    with pytest.raises(ValueError, match="keep has n"):
        SourceReader(index, {}, ["n"])
    assert SourceReader(index, {}).load([]) == []


def random_records(count: int, *, width: int) -> Records:
    """That do not compress."""
    draw = random.Random(0)
    return [{"instruction": f"{i} {draw.randbytes(width).hex()}", "n": i, "big": "y"} for i in range(count)]


def test_of_parquet_the_row_group_of_the_rows_is_read_once(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_records(4000, width=1000), row_group_size=500)
    reader = SourceReader(look(path), {})
    size = path.stat().st_size
    for start in range(1000, 1500, 50):
        assert first_words(reader.load(range(start, start + 50))) == list(range(start, start + 50))
    assert reader.bytes_read < size / 8 * 1.1 + 100_000, "one group of eight, and the footer"
    before = reader.requests
    reader.load([3999])
    assert reader.requests - before <= 4


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    records = [{**row, "big": row["instruction"] * 9} for row in random_records(600, width=1000)]
    path = write_source(tmp_path / "a.parquet", records, row_group_size=300)
    reader = SourceReader(look(path), {})
    assert len(reader.load(range(600))) == 600
    assert reader.bytes_read < path.stat().st_size * 0.4


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.parquet", random_records(24_000, width=1000), row_group_size=24_000)
    assert path.stat().st_size > 20 << 20
    reader = SourceReader(look(path), {})
    assert first_words(reader.load(range(100))) == list(range(100))
    assert reader.bytes_read < path.stat().st_size / 3
    reader.load(range(12_000, 12_010))
    assert first_words(reader.load(range(100, 200))) == list(range(100, 200))
    assert first_words(reader.load(range(12_010, 12_020))) == list(range(12_010, 12_020))


def test_json_lines_are_found_by_their_place(tmp_path: Path) -> None:
    path = write_source(tmp_path / "a.jsonl", numbered(20_000, width=500))
    reader = SourceReader(look(path), {})
    assert first_words(reader.load(range(15_000, 15_100))) == list(range(15_000, 15_100))
    assert reader.bytes_read < path.stat().st_size / 5
    before = reader.bytes_read
    reader.load(range(15_100, 15_200))
    assert reader.bytes_read - before <= 1 << 20, "the stream goes on"


def test_compressed_json_lines_are_streamed_once_for_rows_in_order(tmp_path: Path) -> None:
    records = random_records(6000, width=1000)
    path = write_source(tmp_path / "a.jsonl.gz", records)
    index = look(path)
    reader = SourceReader(index, {})
    for start in range(0, 6000, 250):
        assert first_words(reader.load(range(start, start + 250))) == list(range(start, start + 250))
    assert reader.bytes_read <= path.stat().st_size
    assert index.files["offsets"].null_count == 1


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    lines = [json.dumps({"instruction": str(i)}) + "\n\n" for i in range(3000)]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + "".join(lines).encode()[:-2])
    reader = SourceReader(look(path), {})
    assert first_words(reader.load([2999, 1024, 0, 1023, 2048])) == [2999, 1024, 0, 1023, 2048]


def test_a_row_that_can_not_be_used_is_named_by_its_file_and_place(tmp_path: Path) -> None:
    write_source(tmp_path / "a.parquet", instructions("x", "y"))
    write_source(tmp_path / "b.parquet", [*instructions(*["x"] * 40), {"instruction": None}])
    reader = SourceReader(look(tmp_path), {})
    reader.load(range(40))
    with pytest.raises(SourceError, match=r"b.parquet, row 40 .row 42 of all.: instruction is null"):
        reader.load([41, 42])


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.jsonl.gz"])
def test_a_file_that_has_changed_is_named(tmp_path: Path, name: str) -> None:
    path = write_source(tmp_path / name, numbered(3000, width=300))
    index = look(path, "n")
    write_source(path, numbered(2000, width=300))
    with pytest.raises(SourceError, match=name):
        SourceReader(index, {}, ["n"]).load([2999])
    path.unlink()
    with pytest.raises(SourceError, match=f"{name} is gone since"):
        SourceReader(index, {}, ["n"]).load([0])


def test_damage_to_a_page_is_found(tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path)), num_rows=4, grid=4)
    index = look(tmp_path)
    (path,) = (tmp_path / "data").glob("*")
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"part-000000000000.parquet.* can't be read"):
        SourceReader(index, {}).load([0])


def test_texts_with_dictionaries_and_of_other_layouts_are_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "conversations": pa.array(
                [[{"from": "human", "value": "a"}], [{"from": "human", "value": "b"}]],
                pa.large_list(pa.struct([("value", pa.large_string()), ("from", pa.string())])),
            ),
            "topic": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = rows_of(tmp_path / "a.parquet", "topic")
    assert [(row.messages[0][1], row.kept.to_pylist()) for row in rows if row.kept] == [
        ("a", [{"topic": "x"}]),
        ("b", [{"topic": "y"}]),
    ]


def test_an_outage_of_the_store_is_waited_for_and_a_refusal_is_told_without_credentials(
    s3_server: S3Server,
) -> None:
    url = f"s3://{s3_server.bucket}/outage"
    complete_build(Storage(url, s3_server.storage_options), num_rows=10, grid=4)
    with FaultProxy(s3_server) as proxy:
        options = proxy.server.storage_options
        index = look_at_source("source.path", url, options, ())
        reader = SourceReader(index, options, patience=Patience(max_wait=0.1))
        proxy.spoil("GET", "503 SlowDown", "reset", "cut_body", "flipped_body", part="part-")
        assert [row.row_id for row in reader.load(range(10))] == list(range(10))
        assert proxy.unused == 0
    wrong = {**s3_server.storage_options, "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(StorageError) as caught:
        SourceReader(index, wrong, patience=Patience(retry=0.2, max_wait=0.1)).load([0])
    assert "part-000000000000.parquet can't be read" in str(caught.value)
    assert str(s3_server.storage_options["secret"]) not in str(caught.value)
