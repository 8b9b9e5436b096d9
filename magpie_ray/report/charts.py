"""The charts of a report, by name.

Pure: facts in, Vega-Lite specifications out; drawing is another's work.
"""

from magpie_ray.report import charts_rows, charts_work
from magpie_ray.report.chart_parts import Chart
from magpie_ray.report.facts import Facts


def charts_of(facts: Facts) -> dict[str, Chart]:
    """All that there is something to show in."""
    made = {
        "rows": charts_work.rows(facts),
        "rate": charts_work.rate(facts),
        "actors": charts_work.actors(facts),
        "engines": charts_work.engines(facts),
        "user-tokens": charts_rows.lengths(facts, "user"),
        "assistant-tokens": charts_rows.lengths(facts, "assistant"),
        "reasons": charts_rows.reasons(facts),
        "prompts": charts_rows.prompts(facts),
        "words": charts_rows.words(facts),
    }
    return {name: chart for name, chart in made.items() if chart}
