"""The chart of first words."""

from itertools import pairwise
from typing import Any

from magpie_ray.publish.report import charts_rows
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.survey import Survey
from tests.support.builds import build_of


def boxes_of(first_words: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    survey = Survey(rows=sum(first_words.values()), first_words=first_words)
    facts = Facts(
        url="/out", build=build_of(), runs=(), records=(), num_rows=1, survey=survey, today="2026-01-01"
    )
    chart = charts_rows.words(facts)
    assert chart is not None
    data: Any = chart.spec["data"]
    boxes: list[dict[str, Any]] = data["values"]
    return boxes


def test_words_too_rare_for_a_label_are_gathered_as_other() -> None:
    rare = {("what", f"word{number}"): 1 for number in range(5)}
    boxes = boxes_of({("what", "is"): 495, ("how", "to"): 496, ("why", ""): 2, ("who", "is"): 2} | rare)
    first = {
        box["label"].split()[0]: (box["y"], box["y2"]) for box in boxes if box["x"] == 0 and box["label"]
    }
    assert first == {"what": (0, 500), "how": (500, 996)}
    assert [box["tooltip"] for box in boxes if "(other)" in box["tooltip"]] == [
        "what (other): 5 rows, 0.5%",
        "(other): 4 rows, 0.4%",
    ]
    for column in (0, 1):
        ends = [(box["y"], box["y2"]) for box in boxes if box["x"] == column]
        assert all(end == begin for (_, end), (begin, _) in pairwise(ends))
