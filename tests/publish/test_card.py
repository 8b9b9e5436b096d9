"""The dataset card: valid for the hub, true to the build, and never at the cost of a user's words."""

import base64
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import yaml
from huggingface_hub import DatasetCard

from magpie_ray.curation.dedupe import DedupeSpec, dedupe
from magpie_ray.curation.select import SelectSpec, select
from magpie_ray.dataset.layout import CARD_KEY
from magpie_ray.errors import PreflightError, ReportError
from magpie_ray.publish.card import render_card, write_card
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord
from tests.support.builds import build_of, complete_build, config_of, memory_storage


def record(rows: int, **rejected: int) -> PartitionRecord:
    return PartitionRecord(start=0, stop=rows, fingerprint="f", run=1, size=1, rejected=rejected)


def front_of(text: str) -> dict[str, object]:
    front: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return front


def test_the_card_of_a_build_is_valid_and_says_what_is_in_it() -> None:
    storage = memory_storage()
    complete_build(storage, num_rows=10)
    assert write_card(storage).endswith("README.md")
    card = DatasetCard(storage.read(CARD_KEY).decode())
    assert card.data.license == "unknown"
    assert card.data.size_categories == ["n<1K"]
    assert "10 rows, written by" in card.text
    assert "| `conversation` | `list<struct<role: string, content: string>>` |" in card.text
    assert "put a licence in the place of `unknown`" in card.text


def test_datasets_loads_the_folder_with_the_features_of_the_card(tmp_path: Path) -> None:
    import datasets

    storage = Storage(str(tmp_path / "build"))
    complete_build(storage, num_rows=10)
    write_card(storage)
    rows = datasets.load_dataset(str(tmp_path / "build"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows["row_id"] == list(range(10))
    assert rows[3]["conversation"] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
    ]
    plain = datasets.Dataset.from_parquet(
        str(tmp_path / "build" / "data" / "*.parquet"), cache_dir=str(tmp_path)
    )
    assert rows.features == plain.features


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (pa.int16(), {"dtype": "int16"}),
        (pa.float64(), {"dtype": "float64"}),
        (pa.date32(), {"dtype": "date32"}),
        (pa.list_(pa.string()), {"list": "string"}),
        (pa.list_(pa.float32(), 3), {"list": "float32", "length": 3}),
        (pa.decimal128(9, 2), None),
    ],
)
def test_the_card_lists_columns_from_inputs_with_types_that_readers_know(
    kind: pa.DataType, named: dict[str, object] | None
) -> None:
    kept = pa.schema([("town", pa.string()), ("x", kind)])
    config = config_of(inputs={"path": "prompts.csv", "keep": ["town", "x"]})
    built = replace(build_of(config=config), kept=base64.b64encode(kept.serialize()).decode())
    card = render_card(built, [record(10)], num_rows=10)
    assert "| `town` | `string` | from the row's input |" in card
    features = front_of(card).get("dataset_info")
    if named is None:  # it is in the files; a wrong name here would keep readers out
        assert features is None
    else:
        assert features["features"][-1] == {"name": "x", **named}  # type: ignore[index]


def test_what_the_user_has_added_stays_and_what_follows_from_the_build_is_new() -> None:
    built = build_of()
    first = render_card(built, [record(10)], num_rows=10)
    front, body = first.split("---\n", 2)[1:]
    edited = yaml.safe_load(front) | {
        "license": "apache-2.0",
        "language": ["de"],
        "size_categories": ["n>1T"],
    }
    mine = f"---\n{yaml.safe_dump(edited)}---\n# My own words\n{body}\nMore words.\n"
    second = render_card(built, [record(2000, empty=3)], num_rows=2000, present=mine)
    found = front_of(second)
    assert (found["license"], found["language"], found["size_categories"]) == (
        "apache-2.0",
        ["de"],
        ["1K<n<10K"],
    )
    assert second.count("# My own words") == second.count("More words.") == 1
    assert "2,000 rows" in second
    assert "\n10 rows" not in second
    assert "3 rejected (3 empty)" in second
    assert "put a licence" not in second
    assert render_card(built, [record(2000, empty=3)], num_rows=2000, present=second) == second


def test_a_card_that_was_there_before_is_kept_below() -> None:
    built = build_of()
    text = render_card(built, [record(10)], num_rows=10, present="# Mine\n\nWords.\n")
    assert text.index("10 rows") < text.index("# Mine\n\nWords.")
    assert text == render_card(built, [record(10)], num_rows=10, present=text)


def test_a_build_that_is_not_complete_says_so() -> None:
    assert "10 rows of 50: the build is not complete yet" in render_card(
        build_of(), [record(10)], num_rows=50
    )


def test_front_matter_that_is_no_yaml_is_left_as_it_is_and_named() -> None:
    storage = memory_storage()
    complete_build(storage)
    storage.replace(CARD_KEY, b"---\nlicense: [\n---\nWords.\n")
    with pytest.raises(ReportError, match=r"README\.md: the front matter, .* is not a YAML mapping"):
        write_card(storage)
    assert storage.read(CARD_KEY).endswith(b"Words.\n")


def test_where_there_is_no_build_there_is_no_card() -> None:
    with pytest.raises(PreflightError, match="holds no build"):
        write_card(memory_storage())


def test_no_text_of_the_config_ends_its_block_and_no_secret_is_in_it() -> None:
    config = config_of(
        system_prompt="```\n# Injected\n````",
        output={"path": "memory://x", "storage_options": {"secret": "s3cr3t"}},
    )
    text = render_card(build_of(config=config), [record(1)], num_rows=1)
    assert "`````yaml" in text
    assert "s3cr3t" not in text


def test_languages_that_were_required_are_named() -> None:
    config = config_of(
        system_prompt={"german": "Schreibe.", "french": "Parlez."},
        acceptance={"rules": {"language": {"by_prompt": {"german": "de", "french": ["fr"]}}}},
    )
    assert front_of(render_card(build_of(config=config), [record(1)], num_rows=1))["language"] == ["de", "fr"]


def test_the_card_of_a_selection_shows_its_query_and_what_its_sources_were() -> None:
    source, storage = memory_storage(), memory_storage()
    record, _ = complete_build(source)
    sql = "SELECT row_id, response, 1 AS part FROM rows -- ```"
    select(storage, SelectSpec(sources={"rows": source.url}, sql=sql, storage_options={}))
    write_card(storage)
    card = DatasetCard(storage.read(CARD_KEY).decode())
    assert card.data.to_dict()["pretty_name"] == "Selected Magpie rows"
    assert f"````sql\n{sql}\n````" in card.text
    assert f"| `rows` | {source.url} | fingerprint {record.fingerprint}, rows 10, content " in card.text
    assert "| `source_row_id` | `int64` | the row's row_id in its source |" in card.text
    assert "| `part` | `int32` | from select |" in card.text
    assert "It kept 10 rows, from 10 of `rows` (100%)." in card.text
    assert "What each condition removed is not counted: the query has no WHERE of its own." in card.text


def test_the_card_of_a_selection_shows_what_each_condition_removed() -> None:
    source, storage = memory_storage(), memory_storage()
    complete_build(source)
    sql = "SELECT row_id, response FROM rows WHERE row_id > 1 AND (row_id < 8 OR response = '`|`')"
    select(storage, SelectSpec(sources={"rows": source.url}, sql=sql, storage_options={}))
    write_card(storage)
    text = storage.read(CARD_KEY).decode()
    assert "It kept 6 rows, from 10 of `rows` (60%). Before WHERE there were 10, and 6 of them (60%)" in text
    assert "| condition | rows that fail it | that fail it alone |" in text
    assert "| `row_id > 1` | 2 | 2 |" in text
    assert "| `` (row_id < 8) OR (response = '`\\|`') `` | 2 | 2 |" in text


def test_the_card_says_what_the_columns_of_dedupe_mean() -> None:
    source, other, storage, joined = (memory_storage() for _ in range(4))
    complete_build(source)
    complete_build(other)
    dedupe(storage, DedupeSpec(source=source.url, against=(other.url,)))
    select(
        joined,
        SelectSpec(
            sources={"rows": source.url, "marks": storage.url},
            sql="SELECT * FROM rows JOIN marks USING (row_id)",
            storage_options={},
        ),
    )
    write_card(storage)
    text = storage.read(CARD_KEY).decode()
    assert "from dedupe" not in text  # each column has a meaning of its own
    assert "| `repeat_count` | `int32` | how many rows of its cluster of near-duplicates come before" in text
    write_card(joined)
    assert (
        "| `min_similar_row_id` | `int64` | the row_id of that row in the source"
        in joined.read(CARD_KEY).decode()
    )
