"""Rows for training programs: nothing is lost on the way, and a file is there whole or not at all."""

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.dataset import build_record
from magpie_ray.errors import ConfigError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.publish.export import FORMATS, answered_rows, export, parquet_schema
from magpie_ray.publish.export_file import STDOUT
from magpie_ray.storage.storage import Storage
from magpie_ray.types import RowFormat
from tests.support.builds import build_of, complete_build, config_of, memory_storage


@pytest.fixture
def storage() -> Storage:
    made = memory_storage()
    complete_build(made, num_rows=10, texts=("Why\u2028not?\n", 'Because "so".'))
    return made


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def test_messages_are_the_conversations_as_they_are(storage: Storage, tmp_path: Path) -> None:
    assert export(storage, "messages", str(tmp_path / "rows.jsonl")) == 10
    found = lines_of(tmp_path / "rows.jsonl")
    assert [row["row_id"] for row in found] == list(range(10))
    assert found[4]["messages"] == [
        {"role": "user", "content": "Why\u2028not?\n"},
        {"role": "assistant", "content": 'Because "so".'},
    ]


def test_sharegpt_has_its_own_names(storage: Storage, tmp_path: Path) -> None:
    export(storage, "sharegpt", str(tmp_path / "rows.jsonl"))
    assert lines_of(tmp_path / "rows.jsonl")[2] == {
        "id": "2",
        "conversations": [
            {"from": "human", "value": "Why\u2028not?\n"},
            {"from": "gpt", "value": 'Because "so".'},
        ],
    }


def test_alpaca_is_one_instruction_and_one_answer(storage: Storage, tmp_path: Path) -> None:
    export(storage, "alpaca", str(tmp_path / "rows.jsonl"))
    assert lines_of(tmp_path / "rows.jsonl")[9] == {
        "instruction": "Why\u2028not?\n",
        "input": "",
        "output": 'Because "so".',
    }


ROW = {
    "row_id": 7,
    "conversation": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "Q2"},
        {"role": "assistant", "content": "A2"},
    ],
    "system_prompt": "Be kind.",
    "reasoning": ["because", ""],
}


def test_a_system_prompt_is_written_once_where_it_is_wanted_and_else_not_at_all() -> None:
    line = FORMATS["messages"]
    roles = [message["role"] for message in line(ROW, True)["messages"]]  # type: ignore[attr-defined]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert line(ROW, False)["messages"][0] == {"role": "user", "content": "Q"}  # type: ignore[index]


def test_reasoning_stands_with_its_own_answer() -> None:
    messages: Any = FORMATS["messages"](ROW, False)["messages"]
    assert messages[1] == {"role": "assistant", "content": "A", "reasoning_content": "because"}
    assert messages[3] == {"role": "assistant", "content": "A2"}


def test_rows_of_instructions_alone_are_messages_of_the_user() -> None:
    row = {"row_id": 1, "instruction": "Q", "system_prompt": None}
    assert FORMATS["sharegpt"](row, True)["conversations"] == [{"from": "human", "value": "Q"}]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "deep/er/rows.jsonl.gz"])
def test_a_name_says_how_the_file_is_compressed(storage: Storage, tmp_path: Path, name: str) -> None:
    export(storage, "messages", str(tmp_path / name))
    assert len(gzip.decompress((tmp_path / name).read_bytes()).splitlines()) >= 10


def test_a_store_takes_it_as_a_disk_does(storage: Storage) -> None:
    import fsspec

    export(storage, "alpaca", "memory://exported/rows.jsonl", force=True)
    with fsspec.open("memory://exported/rows.jsonl") as file:
        assert len(file.read().split(b"\n")) == 11


def test_what_is_there_is_not_written_over_unless_it_is_said(storage: Storage, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        export(storage, "messages", str(target))
    assert target.read_text() == "mine"
    export(storage, "messages", str(target), force=True)
    assert len(lines_of(target)) == 10


def test_a_device_is_not_replaced_by_a_file(storage: Storage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="device or a pipe"):
        export(storage, "messages", str(tmp_path / "pipe"), force=True)
    with pytest.raises(StorageError, match="can't be written to"):
        export(storage, "messages", "/proc/none/rows.jsonl")


def test_an_export_that_fails_leaves_nothing_behind(storage: Storage, tmp_path: Path) -> None:
    storage.replace("data/part-000000000008.parquet", b"no Parquet")
    with pytest.raises(CorruptBuildError):
        export(storage, "messages", str(tmp_path / "rows.jsonl"))
    assert list(tmp_path.iterdir()) == []


def test_one_partition_is_in_memory_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=12, grid=3)
    read: list[str] = []
    written: list[int] = []
    plain = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, key: read.append(key) or plain(self, key))

    class Output:
        def write(self, line: bytes) -> None:
            written.append(sum("data/" in key for key in read))

    monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=Output()))
    export(storage, "messages", STDOUT)
    assert written == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3


def test_alpaca_of_rows_that_it_can_not_hold_is_refused(tmp_path: Path) -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of(config=config_of(n_turns=2)))
    with pytest.raises(ConfigError, match="use --to messages"):
        export(storage, "alpaca", str(tmp_path / "rows.jsonl"))
    with pytest.raises(ConfigError, match="is a directory"):
        export(storage, "messages", str(tmp_path))


def test_without_a_build_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(PreflightError):
        export(memory_storage(), "messages", str(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("to", ["messages", "sharegpt", "alpaca"])
def test_a_file_that_is_called_parquet_is_parquet_with_the_same_rows(
    storage: Storage, tmp_path: Path, to: RowFormat
) -> None:
    for name in ("rows.parquet", "rows.jsonl"):
        assert export(storage, to, str(tmp_path / name)) == 10
    assert pq.read_table(tmp_path / "rows.parquet").to_pylist() == lines_of(tmp_path / "rows.jsonl")


def test_a_parquet_file_has_the_columns_of_its_build_whatever_its_rows(tmp_path: Path) -> None:
    schema = parquet_schema("messages", {"reasoning"}, True)
    row = FORMATS["messages"](ROW, True)
    table = pa.Table.from_pylist([row], schema=schema)
    assert table.to_pylist()[0]["messages"][2]["reasoning_content"] == "because"
    assert parquet_schema("alpaca", (), True).names == ["instruction", "input", "output", "system"]


@pytest.mark.parametrize("name", ["x.csv", "x.CSV", "x.arrow", "x.parquet.gz", "x.csv.zst", "x.xlsx"])
def test_a_name_that_promises_another_kind_of_file_is_refused(
    storage: Storage, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"export does not write: name a \.jsonl .* or a \.parquet"):
        export(storage, "messages", str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_several_answers_follow_the_instruction_also_where_a_selection_has_no_conversation() -> None:
    row = {"row_id": 0, "instruction": "Q?", "responses": ["a", None, "b"], "finish_reasons": ["stop"]}
    [first, second] = answered_rows([row])
    assert [FORMATS["messages"](each, False)["messages"] for each in (first, second)] == [
        [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": text}] for text in "ab"
    ]
    # The columns of each answer may be shorter than the answers.
    assert (first["finish_reasons"], second["finish_reasons"]) == (["stop"], [])


@pytest.mark.parametrize("lacks", [{"instruction": None}, {"conversation": None}, {"conversation": []}])
def test_a_row_without_a_message_of_the_user_is_left_out(lacks: dict[str, Any]) -> None:
    whole = {"row_id": 1, "conversation": [{"role": "user", "content": "Why?"}]}
    assert list(answered_rows([{"row_id": 0, "response": "So.", **lacks}, whole])) == [whole]
