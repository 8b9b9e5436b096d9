"""docs/data.md tells the truth: its code reads a build."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from magpie_ray.curation.dedupe import DedupeSpec, dedupe
from magpie_ray.dataset.build_record import require_build
from magpie_ray.publish.curated_card import curated_meaning
from magpie_ray.publish.export import export
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/data.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("code", CODE, ids=lambda code: code.split("\n")[0])
def test_its_code_reads_a_build(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complete_build(Storage(str(tmp_path / "out")))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    found: dict[str, Any] = {}
    exec(code.replace("OUTPUT", str(tmp_path / "out")), found)
    assert len(found["rows"]) == 10


def test_what_trainers_are_told_are_the_names_of_the_export(tmp_path: Path) -> None:
    build = memory_storage()
    complete_build(build)
    export(build, "messages", str(tmp_path / "rows.parquet"), system_prompts=True)
    table = pq.read_table(tmp_path / "rows.parquet")
    names = {field.name for field in table.schema.field("messages").type.value_type}
    roles = {message["role"] for row in table["messages"].to_pylist() for message in row}
    blocks = dict(re.findall(r"```(json|yaml)\n(.*?)```", PAGE.split("## To a trainer")[1], re.DOTALL))
    [axolotl] = yaml.safe_load(blocks["yaml"])["datasets"]
    assert axolotl["field_messages"] in table.column_names
    assert set(axolotl["message_property_mappings"].values()) <= names
    [factory] = json.loads(blocks["json"]).values()
    assert factory["columns"]["messages"] in table.column_names
    tags = factory["tags"]
    assert {tags["role_tag"], tags["content_tag"]} <= names
    assert roles <= {tags["user_tag"], tags["assistant_tag"], tags["system_tag"]}


def test_the_columns_of_dedupe_are_those_that_it_writes_as_the_card_explains_them() -> None:
    source, marked = memory_storage(), memory_storage()
    complete_build(source)
    dedupe(marked, DedupeSpec(source=source.url, against=(source.url,)))
    table = PAGE.split("### Columns of dedupe")[1].split("## Reading it")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| ([\w ]+) \|", table, re.MULTILINE))
    schema = require_build(marked).schema.remove(0)
    types = {"float": "float32"}
    assert told == {
        field.name: types.get(str(field.type), str(field.type)) + " or null" * field.nullable
        for field in schema
    }
    for name in told:
        assert not curated_meaning("dedupe", name).startswith("from "), name
