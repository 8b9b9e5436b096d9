"""Columns follow from the config alone, and the documentation says of each what the code says."""

import re
from typing import Any

import pyarrow as pa
import pytest

from magpie_ray.dataset.columns import COLUMNS, columns_of, schema_of
from tests.support.builds import config_of
from tests.support.paths import ROOT

LAST_COLUMNS = "model_name finish_reasons prompt_tokens completion_tokens attempt"


@pytest.mark.parametrize(
    ("mode", "columns"),
    [
        ({}, "row_id conversation instruction response system_prompt"),
        ({"end_with_user": True}, "row_id conversation instruction system_prompt"),
        ({"n_turns": 2}, "row_id conversation system_prompt"),
        ({"n_turns": 2, "only_instruction": True}, "row_id instruction system_prompt"),
        (
            {"n_turns": 2, "system_prompt": {"math": "Do sums."}},
            "row_id conversation system_prompt system_prompt_key",
        ),
        ({"n_turns": 2, "inputs": {"path": "a.csv"}}, "row_id conversation system_prompt input_id"),
    ],
)
def test_the_columns_are_decided_by_the_mode(mode: dict[str, Any], columns: str) -> None:
    assert " ".join(columns_of(config_of(**mode))) == f"{columns} {LAST_COLUMNS}"


def test_each_column_is_written_in_some_mode() -> None:
    every_column = {
        "system_prompt": {"a": "b"},
        "sampling": {"user": [{"temperature": 1}, {"temperature": 2}]},
        "model": {"thinking": True},
    }
    modes = [config_of(**every_column, n_turns=n) for n in (1, 2)]
    modes.append(config_of(inputs={"path": "prompts.csv"}))
    assert {name for mode in modes for name in columns_of(mode)} == set(COLUMNS)
    assert [field.name for field in schema_of(COLUMNS) if field.nullable] == [
        "system_prompt",
        "system_prompt_key",
    ]


def type_text(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"{{{', '.join(field.name for field in kind)}}}"
    return f"list of {type_text(kind.value_type)}" if pa.types.is_list(kind) else str(kind)


@pytest.mark.parametrize(("page", "text"), [("README.md", "when"), ("docs/data.md", "meaning")])
def test_a_table_of_columns_says_what_the_code_says(page: str, text: str) -> None:
    rows = re.findall(r"^\| `row_id`.*?\n\n", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    columns = COLUMNS.values()
    assert [row.strip().splitlines() for row in rows] == [
        [
            f"| `{c.name}` | {type_text(c.type)}{' or null' * c.nullable} | {getattr(c, text)} |"
            for c in columns
        ]
    ]
