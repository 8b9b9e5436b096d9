"""Rows become the same rows in every reader, and a file says what it is."""

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.counters import Tally
from magpie_ray.dataset.columns import columns_of, schema_of, to_table
from magpie_ray.dataset.parquet import footer_bytes, read_record, to_parquet
from magpie_ray.errors import CorruptBuildError
from magpie_ray.types import PartitionRecord, Row, SystemPrompt
from tests.support.builds import PROMPT, config_of, row_of

ALWAYS = ["model_name", "finish_reasons", "prompt_tokens", "completion_tokens", "attempt"]
TALLY = Tally(rows=3, rejected={"empty": 2}, user_tokens=60, assistant_tokens=63)


def written(rows: list[Row], **keys: Any) -> tuple[bytes, PartitionRecord]:
    config = config_of(**keys)
    table = to_table(rows, config)
    return to_parquet(table, compression=config.output.compression, fingerprint="f" * 64, run=7, tally=TALLY)


def table_of(data: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(data))


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        ({"only_instruction": True}, ["instruction", "system_prompt"]),
        ({}, ["conversation", "instruction", "response", "system_prompt"]),
        ({"end_with_user": True}, ["conversation", "instruction", "system_prompt"]),
        ({"n_turns": 2}, ["conversation", "system_prompt"]),
        ({"n_turns": 2, "end_with_user": True}, ["conversation", "system_prompt"]),
        (
            {"system_prompt": {"a": "Be brief."}},
            ["conversation", "instruction", "response", "system_prompt", "system_prompt_key"],
        ),
        (
            {"include_system_prompt": True},
            ["conversation", "instruction", "response", "system_prompt"],
        ),
    ],
)
def test_the_schema_follows_from_the_config_alone(keys: dict[str, Any], columns: list[str]) -> None:
    count = config_of(**keys).messages_per_row
    bare = [row_of(0, ["text"] * count), row_of(1, [""] * count)]
    full = [row_of(0, ["text"] * count, SystemPrompt(key="a", text="Be brief.", weight=1.0))]
    tables = [table_of(written(rows, **keys)[0]) for rows in (bare, full)]
    assert tables[0].schema.equals(tables[1].schema, check_metadata=False)
    assert tables[0].column_names == ["row_id", *columns, *ALWAYS]
    assert tables[0].schema.equals(schema_of(columns_of(config_of(**keys))), check_metadata=False)


def test_a_row_is_in_its_columns() -> None:
    data, _ = written([row_of(5, ["Why?", "Because."], PROMPT)], include_system_prompt=True)
    assert table_of(data).to_pylist() == [
        {
            "row_id": 5,
            "conversation": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "Why?"},
                {"role": "assistant", "content": "Because."},
            ],
            "instruction": "Why?",
            "response": "Because.",
            "system_prompt": "Be kind.",
            "model_name": "builtin:tiny-chat",
            "finish_reasons": ["stop", "stop"],
            "prompt_tokens": [10, 11],
            "completion_tokens": [20, 21],
            "attempt": 1,
        }
    ]


def test_the_system_prompt_stays_out_of_the_conversation_unless_asked_for_and_none_is_null() -> None:
    data, _ = written([row_of(0, prompt=PROMPT), row_of(1)], system_prompt={"a": "Be kind."})
    with_prompt, without = table_of(data).to_pylist()
    assert [message["role"] for message in with_prompt["conversation"]] == ["user", "assistant"]
    assert (with_prompt["system_prompt"], with_prompt["system_prompt_key"]) == ("Be kind.", None)
    assert (without["system_prompt"], without["system_prompt_key"]) == (None, None)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",))), st.text(st.characters(exclude_categories=("Cs",))))
def test_any_text_comes_back_as_it_was(user: str, assistant: str) -> None:
    data, _ = written([row_of(0, [user, assistant])])
    [row] = table_of(data).to_pylist()
    assert (row["instruction"], row["response"]) == (user, assistant)
    assert [message["content"] for message in row["conversation"]] == [user, assistant]


def test_a_lone_surrogate_is_an_error_and_never_a_file() -> None:
    with pytest.raises(UnicodeEncodeError):
        written([row_of(0, ["\ud800", "x"])])


def test_rows_out_of_order_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="out of order"):
        written([row_of(1), row_of(3)])


# ---- the footer


def test_the_footer_says_what_the_file_is() -> None:
    data, record = written([row_of(row_id) for row_id in (8, 9, 10)])
    assert record == PartitionRecord(
        start=8,
        stop=11,
        fingerprint="f" * 64,
        run=7,
        size=len(data),
        rejected={"empty": 2},
        user_tokens=60,
        assistant_tokens=63,
    )
    tail = data[-footer_bytes(data[-8:]) :]
    assert len(tail) < len(data)
    assert read_record(tail, key=record.partition.key, size=len(data)) == record


KEY = "data/part-000000000008.parquet"


def foreign_file() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), sink)
    return sink.getvalue()


def file_with_footer(footer: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}).replace_schema_metadata({b"magpie_ray": footer}), sink)
    return sink.getvalue()


def good_file() -> bytes:
    return written([row_of(8), row_of(9)])[0]


@pytest.mark.parametrize(
    ("data", "key", "reason"),
    [
        (b"", KEY, "not a whole Parquet file"),
        (b"PAR1", KEY, "not a whole Parquet file"),
        (b"not parquet at all", KEY, "not a whole Parquet file"),
        (good_file()[:-1], KEY, "not a whole Parquet file"),
        (good_file()[:200], KEY, "not a whole Parquet file"),
        (good_file() + b"\0", KEY, "not a whole Parquet file"),
        (foreign_file(), KEY, "not written by magpie-ray"),
        (good_file(), "data/part-000000000012.parquet", "renamed or damaged"),
        (good_file(), "data/copy of part-000000000008.parquet", "renamed or damaged"),
        (file_with_footer(b"[1]"), KEY, "footer is damaged or foreign"),
        (file_with_footer(b"{"), KEY, "footer is damaged or foreign"),
        (file_with_footer(b'{"start": 8}'), KEY, "footer is damaged or foreign"),
        (
            file_with_footer(b'{"start": 8, "stop": "9", "fingerprint": "f", "run": 1}'),
            KEY,
            "footer is damaged or foreign",
        ),
        (
            file_with_footer(b'{"start": 8, "stop": 8, "fingerprint": "f", "run": 1}'),
            KEY,
            "renamed or damaged",
        ),
        (
            file_with_footer(b'{"start": 8, "stop": 10, "fingerprint": "f", "run": 1}'),
            KEY,
            "renamed or damaged",
        ),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(data: bytes, key: str, reason: str) -> None:
    with pytest.raises(CorruptBuildError, match=reason) as caught:
        read_record(data, key=key, size=len(data))
    assert str(caught.value).startswith(key)


def test_a_damaged_footer_is_harmless_or_a_corrupt_build() -> None:
    data, record = written([row_of(row_id) for row_id in range(3)])
    tail, draw = data[-footer_bytes(data[-8:]) :], random.Random(0)
    for _ in range(300):
        damaged = bytearray(tail)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        with contextlib.suppress(CorruptBuildError):  # anything else is a failure
            read_record(bytes(damaged), key=record.partition.key, size=len(data))


# ---- readers

TEXTS = ["plain", "", "línea\r\n\ttwo", "emoji 🧑‍🚀", "nul \0 in it", "'quoted', \"twice\"", "日本語　全角"]


@pytest.mark.slow
def test_all_readers_see_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [row_of(i, [text, text[::-1]], PROMPT if i % 2 else None) for i, text in enumerate(TEXTS)]
    for name, part in (("part-000000000000", rows[:4]), ("part-000000000004", rows[4:])):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{name}.parquet").write_bytes(written(part)[0])
    pattern = str(tmp_path / "data" / "*.parquet")
    expected = pq.read_table(tmp_path / "data").to_pylist()
    assert [row["instruction"] for row in expected] == TEXTS

    import duckdb
    import pandas as pd
    import polars as pl

    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT * FROM '{pattern}' ORDER BY row_id")
        seen = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
    assert seen == expected
    assert pl.read_parquet(pattern).to_dicts() == expected
    frame = pd.read_parquet(tmp_path / "data")
    assert frame["response"].tolist() == [row["response"] for row in expected]
    assert [list(messages) for messages in frame["conversation"]] == [row["conversation"] for row in expected]
    assert frame["system_prompt"].isna().tolist() == [row["system_prompt"] is None for row in expected]


@pytest.mark.slow
def test_datasets_loads_the_output_as_it_is(tmp_path: Path) -> None:
    """In a process of its own: the library is slow to import and sets the process up to its liking."""
    (tmp_path / "out" / "data").mkdir(parents=True)
    data, record = written([row_of(i, [text, "x"]) for i, text in enumerate(TEXTS)])
    (tmp_path / "out" / record.partition.key).write_bytes(data)
    (tmp_path / "out" / "_magpie").mkdir()
    (tmp_path / "out" / "_magpie" / "build.json").write_text('{"a": 1}')
    (tmp_path / "out" / "_SUCCESS").write_bytes(b"")
    code = (
        "import sys, json, datasets; d = datasets.load_dataset(sys.argv[1], split='train');"
        "print(json.dumps([[r['row_id'], r['instruction'], r['conversation'][1]['content']] for r in d]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "USE_TORCH": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[i, text, "x"] for i, text in enumerate(TEXTS)]
