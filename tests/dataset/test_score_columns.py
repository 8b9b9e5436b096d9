"""The columns of a score pass: their types, values that are lacking, kept cells."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.config.loading import parse_as
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset.score_columns import score_meanings, score_schema, score_table
from magpie_ray.types import ScoredRow

CHOICE = {"level": {"choice": ["easy", "hard"], "prompt": "{instruction}"}}
REWARD = {"good": {"reward": "response"}}
EMBED = {"vector": {"embed": "instruction"}, "short": {"embed": "response", "dimensions": 2}}


def config_of(columns: dict[str, Any], **source: Any) -> ScoreConfig:
    return parse_as(ScoreConfig, {"source": {"path": "rows"} | source, "columns": columns})


@pytest.mark.parametrize(
    ("columns", "several", "kinds"),
    [
        (CHOICE, False, {"level": pa.string(), "level_probability": pa.float64()}),
        (REWARD, False, {"good": pa.float64()}),
        (REWARD, True, {"good": pa.list_(pa.float64())}),
        (EMBED, False, {"vector": pa.list_(pa.float32(), 3), "short": pa.list_(pa.float32(), 2)}),
    ],
)
def test_the_schema_follows_from_the_config_the_source_and_the_model(
    columns: dict[str, Any], several: bool, kinds: dict[str, pa.DataType]
) -> None:
    schema = score_schema(config_of(columns), several=several, vector_size=3)
    assert {field.name: field.type for field in schema} == {"row_id": pa.int64()} | kinds
    assert not schema.field("row_id").nullable
    assert all(schema.field(name).nullable for name in kinds)
    assert list(score_meanings(config_of(columns).model_dump()["columns"])) == list(kinds)


vectors = st.none() | st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3)


@given(st.lists(st.tuples(vectors, st.none() | st.floats(allow_nan=False)), min_size=1, max_size=9))
def test_every_value_stands_in_its_row_and_what_is_lacking_is_null(drawn: list[Any]) -> None:
    config = config_of({"vector": {"embed": "instruction"}})
    rows = [
        ScoredRow(row_id=i, values={"vector": None if v is None else np.array(v, np.float32)})
        for i, (v, _) in enumerate(drawn)
    ]
    table = score_table(rows, score_schema(config, several=False, vector_size=3))
    assert table["row_id"].to_pylist() == list(range(len(drawn)))
    assert table["vector"].to_pylist() == [v for v, _ in drawn]
    config = config_of(REWARD)
    rows = [ScoredRow(row_id=i, values={"good": number}) for i, (_, number) in enumerate(drawn)]
    table = score_table(rows, score_schema(config, several=False, vector_size=None))
    assert table["good"].to_pylist() == [number for _, number in drawn]


def test_kept_cells_stand_behind_the_scores() -> None:
    config = config_of(CHOICE, keep=["topic"])
    kept = pa.schema([("topic", pa.string())])
    rows = [
        ScoredRow(
            row_id=i,
            values={"level": "easy", "level_probability": 0.5},
            kept=pa.record_batch({"topic": [topic]}, schema=kept),
        )
        for i, topic in enumerate(["a", None, "c"])
    ]
    schema = score_schema(config, several=False, vector_size=None, kept=kept)
    table = score_table(rows, schema, kept)
    assert table.column_names == ["row_id", "level", "level_probability", "topic"]
    assert table["topic"].to_pylist() == ["a", None, "c"]


def test_rewards_of_several_responses_may_lack_one() -> None:
    schema = score_schema(config_of(REWARD), several=True, vector_size=None)
    rows = [ScoredRow(row_id=0, values={"good": [1.5, None]}), ScoredRow(row_id=1, values={"good": None})]
    assert score_table(rows, schema)["good"].to_pylist() == [[1.5, None], None]
