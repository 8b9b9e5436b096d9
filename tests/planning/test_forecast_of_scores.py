"""The cost of a score pass: what its prompts read, not what its rows write."""

import math
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.cli.views.plan import plan_text
from magpie_ray.config.loading import parse_as
from magpie_ray.config.score import ScoreConfig
from magpie_ray.planning.estimate import reading_speed
from magpie_ray.planning.forecast import CostInputs
from magpie_ray.planning.gpus import find_gpu
from magpie_ray.planning.plan import make_plan
from magpie_ray.preflight.resolve import resolve_build
from tests.planning.test_estimate import LLAMA_8B, SAMPLE
from tests.support.sources import instructions, write_source

QUESTION = "Tell how hard the following is, whatever it is about and whoever asks it. "
FIRST = {"level": {"choice": ["easy", "hard"], "prompt": QUESTION + "{instruction}"}}
LAST = {"level": {"choice": ["easy", "hard"], "prompt": "{instruction} " + QUESTION}}
VECTORS = {"whole": {"embed": "instruction"}, "cut": {"embed": "instruction", "dimensions": 8}}


def scores(folder: Path, columns: dict[str, Any] = FIRST, *, rows: int = 40) -> ScoreConfig:
    source = write_source(folder / "rows.jsonl", instructions(*(f"What is {n}?" for n in range(rows))))
    output = {"path": str(folder / "out"), "rows_per_partition": 16}
    return parse_as(
        ScoreConfig, {"source": {"path": str(source)}, "columns": columns, "output": output, "num_rows": rows}
    )


def test_the_plan_of_a_score_pass_says_what_would_run_and_writes_nothing(tmp_path: Path) -> None:
    config = scores(tmp_path)
    found = make_plan(config)
    assert (found["job"], found["messages_per_row"]) == ("score", 0)
    assert (found["rows_pending"], found["partitions_pending"]) == (40, 3)
    assert found["columns"] == ["row_id", "level", "level_probability"]
    assert found["source"]["rows"] == 40
    assert QUESTION + "What is 0?" in found["first_prompt"]
    assert len(found["fingerprint"]) == 64  # nothing is drawn
    assert not (tmp_path / "out").exists()
    said = "\n".join(found["assumptions"])
    assert "`score` starts as many" in said
    assert "`generate`" not in said
    text = plan_text(found, full=True)
    for absent in ("messages each", "stop ids", "longest row", "tokens        "):
        assert absent not in text


def test_a_gpu_prices_the_tokens_that_are_read(tmp_path: Path) -> None:
    inputs = CostInputs(gpu=find_gpu("H100-80GB"), price_per_gpu_hour=2.5)
    config = scores(tmp_path)
    found = make_plan(config, inputs)
    read = resolve_build(config).read_tokens
    assert found["estimate"]["tokens"] == {"low": 40 * read, "high": 40 * read}
    assert found["estimate"]["cost"]["low"] > 0
    text = plan_text(found)
    assert "to read, by the data sheet" in text
    said = " ".join(found["assumptions"])
    for what in (
        "tokens are read for a row",
        "prefix cache",
        "roofline",
        "no download",
        "a row takes 30 bytes",
    ):
        assert what in said
    assert "max_tokens" not in said


def test_a_question_in_front_of_the_row_is_read_once_and_one_behind_it_each_time(tmp_path: Path) -> None:
    first, last = (resolve_build(scores(tmp_path, columns)).read_tokens for columns in (FIRST, LAST))
    assert 2 * first < last


def test_a_second_question_that_begins_with_the_row_reads_little_more(tmp_path: Path) -> None:
    both = LAST | {"other": {"choice": ["yes", "no"], "prompt": "{instruction} " + QUESTION + "Is it?"}}
    one, two = (resolve_build(scores(tmp_path, columns)).read_tokens for columns in (LAST, both))
    assert one < two < 1.5 * one


def test_vectors_are_read_whole_and_count_in_the_files_with_all_their_numbers(tmp_path: Path) -> None:
    config = scores(tmp_path, VECTORS)
    build_spec = resolve_build(config)
    assert build_spec.first_input is not None
    assert build_spec.read_tokens == pytest.approx(2 * len(build_spec.first_input.ids), rel=0.2)
    found = make_plan(config, CostInputs(tokens_per_second=1000.0))
    numbers = (build_spec.vector_size or 0) + 8
    assert found["estimate"]["size_bytes"]["low"] == 40 * (30 + 4 * numbers)
    assert "prefix cache" not in " ".join(found["assumptions"])


def test_a_model_that_does_not_fit_is_not_estimated(tmp_path: Path) -> None:
    config = scores(tmp_path).model_copy(
        update={"engine": scores(tmp_path).engine.model_copy(update={"gpu_memory_utilization": 0.01})}
    )
    found = make_plan(config, CostInputs(gpu=find_gpu("L4")))
    assert found["estimate"] is None
    assert found["warnings"]


def test_a_sample_of_scores_shows_one_figure_each(tmp_path: Path) -> None:
    found = make_plan(scores(tmp_path), CostInputs(sample=SAMPLE))
    assert found["estimate"]["basis"] == "1,000 rows made by 2 engines in 30 s"
    assert found["estimate"]["tokens"] == {"low": 2000, "high": 2000}


def test_an_engine_reads_prompts_faster_on_a_faster_gpu_and_a_smaller_model_faster_still() -> None:
    engine = parse_as(ScoreConfig, {"source": {"path": "x"}, "columns": VECTORS}).engine
    slow, fast = (reading_speed(LLAMA_8B, find_gpu(gpu), engine) for gpu in ("L4", "H100-80GB"))
    assert slow.high < fast.low
    # By arithmetic alone: two operations for each parameter and token.
    most = find_gpu("H100-80GB").arithmetic / (2 * LLAMA_8B.active_parameters)
    assert 0.1 * most < fast.low < fast.high < most
    assert math.isclose(fast.high / fast.low, 0.7 / 0.25)
