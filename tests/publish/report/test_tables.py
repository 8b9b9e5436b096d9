"""The figures in words: the first screen, and cost."""

from dataclasses import replace

from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.tables import cost_note, costs, tiles


def test_the_first_screen_tells_what_matters(facts: Facts) -> None:
    told = {tile.name: f"{tile.value} ({tile.note})" for tile in tiles(facts)}
    assert told["Rows"] == "240 (all rows of the build)"
    assert told["Accepted"] == "72.7% (of 330 attempts)"
    assert told["Duplicates"].endswith("of 240 instructions occur earlier)")
    assert told["GPU hours"].endswith("at 2.5 an hour)")
    assert set(told) == {"Rows", "Tokens", "Accepted", "Duplicates", "GPU hours", "Rows/s"}


def test_cost_is_told_with_a_price_and_what_is_not_known_is_said(facts: Facts) -> None:
    assert costs(facts)["Cost"] == f"{facts.gpu_hours * 2.5:,.2f}"
    free = replace(facts, price=None)
    assert "Cost" not in costs(free)
    assert "--price-per-gpu-hour" in cost_note(free)
    partly = replace(facts, histories={1: facts.histories[1]})
    assert "Not recorded for run 2, 3" in cost_note(partly)
