"""The chart of rewards: every value stands in one bar."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.publish.report import charts_scores
from magpie_ray.publish.report.chart import Chart
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.survey import Survey
from tests.support.builds import build_of


def chart_of(counts: dict[float, int]) -> Chart | None:
    survey = Survey(rows=sum(counts.values()), rewards={"good": counts})
    facts = Facts(
        url="/out", build=build_of(), runs=(), records=(), num_rows=1, survey=survey, today="2026-01-01"
    )
    return charts_scores.rewards(facts, "good")


def bars_of(counts: dict[float, int]) -> list[dict[str, Any]]:
    chart = chart_of(counts)
    assert chart is not None
    data: Any = chart.spec["data"]
    bars: list[dict[str, Any]] = data["values"]
    return bars


@given(st.dictionaries(st.floats(-30, 30).map(lambda value: round(value, 2)), st.integers(1, 50), min_size=1))
def test_bars_share_out_all_values_and_lie_side_by_side(counts: dict[float, int]) -> None:
    bars = bars_of(counts)
    assert sum(bar["share"] for bar in bars) == pytest.approx(1.0, abs=1e-4)
    assert all(a["b"] == pytest.approx(b["a"]) for a, b in pairwise(bars))


def test_a_few_values_far_away_do_not_flatten_the_rest() -> None:
    bars = bars_of({n / 100: 10 for n in range(100)} | {1000.0: 1})
    assert bars[-1]["b"] < 2
    assert max(bar["share"] for bar in bars) < 0.05


def test_equal_values_make_one_bar_and_no_values_none() -> None:
    assert [bar["share"] for bar in bars_of({2.5: 7}) if bar["share"]] == [1.0]
    assert chart_of({}) is None
    chart = chart_of({-1.0: 1, 2.0: 1, 3.0: 1})
    assert chart is not None
    assert chart.title == "Values of good; the median is 2.00"
