"""The table of jobs/pipeline: what adds up, and what does not."""

import json
from pathlib import Path

import pytest

from jobs.pipeline.table import Step, load, problems


def test_steps_that_account_for_all_and_go_on_from_each_other_are_right() -> None:
    steps = [
        Step(name="generate", unit="rows", taken=10, given=10),
        Step(
            name="select",
            of="generate",
            unit="rows",
            taken=10,
            given=6,
            others={"removed: poor": 3, "removed: repeats an earlier row": 1},
        ),
        # Of answers there are more: only steps of one unit are compared.
        Step(name="answers", of="select", unit="answers", taken=24, given=23, others={"null": 1}),
    ]
    assert problems(steps) == []


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            Step(name="select", of="generate", unit="rows", taken=10, given=6, others={"poor": 3}),
            "select: 10 rows went in, and 9 are accounted for",
        ),
        (
            Step(name="select", of="generate", unit="rows", taken=9, given=9),
            "select: generate gave 10 rows, and 9 went in",
        ),
    ],
)
def test_a_row_that_is_lost_is_named_with_its_step(step: Step, said: str) -> None:
    assert problems([Step(name="generate", unit="rows", taken=10, given=10), step]) == [said]


@pytest.mark.slow
def test_an_empty_file_for_the_test_counts_as_none(tmp_path: Path) -> None:
    line = json.dumps({"row_id": 0, "messages": [{"role": "user", "content": "Why?"}]})
    (tmp_path / "best.jsonl").write_text(f"{line}\n{line}\n")
    (tmp_path / "pairs.jsonl").write_text(f"{line}\n")
    (tmp_path / "pairs.test.jsonl").write_text("")
    assert load(tmp_path) == {"best.jsonl": 2, "pairs.jsonl": 1, "pairs.test.jsonl": 0}
