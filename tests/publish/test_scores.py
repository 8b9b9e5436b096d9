"""What is made of a score pass for others: its survey, card and report, and rows as they are shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.cli.views.rows import row_panel
from magpie_ray.config.loading import parse_as
from magpie_ray.config.score import ScoreConfig
from magpie_ray.counters import Tally
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.reader import read_rows
from magpie_ray.dataset.verify import verify
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.publish.card import write_card
from magpie_ray.publish.report.report import read_facts, write_report
from magpie_ray.publish.report.tables import labels, tiles
from magpie_ray.publish.survey import Survey
from magpie_ray.storage.storage import Storage
from magpie_ray.types import ScoredRow
from tests.support.sources import instructions, write_source

LEVEL = {"choice": {"easy": "a child knows", "hard": None}, "prompt": "{labels}\n{instruction}"}
KINDS: dict[str, Any] = {"level": "choice", "good": "reward"}


def pass_of(folder: Path, columns: dict[str, Any], values: Sequence[dict[str, Any]]) -> Storage:
    """A finished pass with these values of its rows."""
    source = write_source(
        folder / "rows.jsonl", instructions(*(f"Question {n}?" for n in range(len(values))))
    )
    config = parse_as(
        ScoreConfig,
        {"source": {"path": str(source)}, "columns": columns, "output": {"path": str(folder / "out")}},
    )
    build_spec = resolve_build(config)
    storage = Storage(str(folder / "out"))
    record = build_record.open_build(storage, build_spec.record(len(values)))
    run = run_records.start_run(storage, num_rows=len(values), host="here", config=config.recorded())
    rows = [ScoredRow(row_id=n, values=of, tokens=1) for n, of in enumerate(values)]
    data, made = to_parquet(
        build_spec.table(rows),
        compression="zstd",
        fingerprint=record.fingerprint,
        run=run.number,
        tally=Tally.sum(Tally.of_row(row) for row in rows),
    )
    storage.create(made.partition.key, data)
    run_records.end_run(storage, run, outcome="complete")
    manifest.write_manifest(storage, record, [made], num_rows=len(values))
    manifest.mark_complete(storage)
    return storage


def level(label: str | None, probability: float | None = 0.75) -> dict[str, Any]:
    return {"level": label, "level_probability": None if label is None else probability}


def test_the_report_has_the_shares_of_labels_and_how_sure_the_model_was(tmp_path: Path) -> None:
    values = [*[level("hard", 0.5)] * 57, *[level("easy", 1.0)] * 2, level(None)]
    storage = pass_of(tmp_path, {"level": LEVEL}, values)
    facts = read_facts(storage)
    rows = [(each.label, each.rows, each.probability) for each in labels(facts)["level"]]
    assert rows == [("easy", 2, 1.0), ("hard", 57, 0.5), ("(none)", 1, None)]
    found = {tile.name: (tile.value, tile.note) for tile in tiles(facts)}
    assert found["Without a score"] == ("1.7%", "1 rows lack a value")
    report = write_report(storage)
    assert not report.advice
    page = Path(report.location).read_text()
    assert "Scores by builtin:tiny-chat" in page
    assert "mean probability" in page
    assert "Duplicates" not in page
    assert 'id="lengths"' not in page
    assert verify(storage).ok


def test_a_label_that_nearly_all_rows_have_is_worth_a_look(tmp_path: Path) -> None:
    said = write_report(pass_of(tmp_path, {"level": LEVEL}, [level("hard")] * 99 + [level("easy")])).advice
    assert said == [
        "99% of the rows have the level 'hard', which then says little: describe the labels in "
        "columns.level, or use a larger model"
    ]


def test_the_card_says_what_the_columns_hold_and_who_scored(tmp_path: Path) -> None:
    storage = pass_of(tmp_path, {"level": LEVEL}, [level("hard")] * 3)
    card = Path(write_card(storage)).read_text()
    assert "# Scores by builtin:tiny-chat" in card
    assert "| `level` | `string` | the label that the model most probably gives: `easy`, `hard` |" in card
    assert "| `level_probability` | `double` | how probable `level` is |" in card
    assert "Scores are a model's opinion" in card
    assert "have the same `row_id`" in card


def test_a_vector_is_loaded_as_its_card_says_and_shown_by_its_beginning(tmp_path: Path) -> None:
    from datasets import load_dataset

    size = resolve_build(
        parse_as(
            ScoreConfig,
            {
                "source": {"path": str(write_source(tmp_path / "one.jsonl", instructions("One?")))},
                "columns": {"vector": {"embed": "instruction"}},
            },
        )
    ).vector_size
    assert size is not None
    vector = np.arange(size, dtype=np.float32)
    storage = pass_of(tmp_path, {"vector": {"embed": "instruction"}}, [{"vector": vector}, {"vector": None}])
    card = Path(write_card(storage)).read_text()
    assert f"length: {size}" in card
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[0]["vector"] == vector.tolist()
    assert rows[1]["vector"] is None
    first = next(iter(read_rows(storage)))
    shown = str(row_panel(first).renderable.renderables[0])  # type: ignore[attr-defined]
    assert shown == f"vector: [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, ... {size} in all]"


cells = st.lists(
    st.tuples(
        st.sampled_from(["easy", "hard", None]),
        st.floats(0, 1),
        st.none() | st.lists(st.none() | st.floats(-20, 20), max_size=3),
    ),
    min_size=2,
    max_size=12,
)


@given(cells, st.integers(1, 11))
def test_surveys_of_parts_add_up_to_that_of_the_whole(drawn: list[Any], cut: int) -> None:
    names = ["row_id", "level", "level_probability", "good"]
    kinds = [pa.int64(), pa.string(), pa.float64(), pa.list_(pa.float64())]
    columns = list(zip(*[(n, *cells) for n, cells in enumerate(drawn)], strict=True))
    whole = pa.record_batch([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=names)
    parts = [whole.slice(cut), whole.slice(0, cut)]
    added = Survey.sum(Survey.of_batch(part, scores=KINDS) for part in parts if len(part))
    expected = Survey.of_batch(whole, scores=KINDS)
    assert (added.rows, added.labels, added.rewards) == (expected.rows, expected.labels, expected.rewards)
    for label, total in expected.probabilities["level"].items():
        assert added.probabilities["level"][label] == pytest.approx(total, abs=2)
    assert sum(expected.labels["level"].values()) == len(drawn)
    assert sum(expected.rewards["good"].values()) == sum(
        value is not None for _, _, values in drawn for value in values or ()
    )
    assert expected.duplicates == 0
