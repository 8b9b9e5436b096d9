"""The report of a build: read what there is, survey the rows, draw, write `_magpie/report.html`.

A thin shell around facts (the figures), charts (what is drawn), drawing (how), tables and page (HTML). What
always holds: the page is one file that fetches nothing; of a build of any size a bounded part is read, and
nothing else is written.
"""

import math
from collections.abc import Mapping, Sequence

from magpie_ray.dataset import actor_history, build_record, layout, manifest, run_records
from magpie_ray.dataset.actor_history import ActorHistoryRecord
from magpie_ray.dataset.rejects import Reject, by_reason, in_turns, read_rejects, reject_keys
from magpie_ray.publish.report import charts_rows, charts_work
from magpie_ray.publish.report.chart_parts import Chart
from magpie_ray.publish.report.charts_work import MAX_SLOTS
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.page import render
from magpie_ray.publish.report.svg import draw
from magpie_ray.publish.survey_reader import most_repeated, spread_order, take_survey
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, PartitionRecord


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


REPORT_KEY = "_magpie/report.html"

_SAMPLES = 50
_REPEATED = 20
# Of each reason, from so many files: there is one a partition.
_SHOWN_REJECTS, _REJECT_FILES = 3, 60


def write_report(
    storage: Storage,
    *,
    price: float | None = None,
    records: Sequence[PartitionRecord] | None = None,
    seconds: float = math.inf,
) -> str:
    """Write the report of the build at this output, in place of an earlier one; returns where it is.

    price: of a GPU hour, in whatever money. records: what is committed, where that is known. seconds: after
    which no further file is surveyed. PreflightError when there is no build; CorruptBuildError when its files
    contradict each other; ReportError when the charts can't be drawn; StorageError.
    """
    facts = read_facts(storage, price=price, records=records, seconds=seconds)
    charts = charts_of(facts)
    specs = {name: chart.spec for name, chart in charts.items()}
    specs |= {f"{name}-narrow": chart.narrow for name, chart in charts.items() if chart.narrow}
    titles = {name: charts[name.removesuffix("-narrow")].title for name in specs}
    page = render(facts, draw(specs, titles), shown_slots=MAX_SLOTS)
    storage.replace(REPORT_KEY, page.encode())
    return storage.display(REPORT_KEY)


def read_facts(
    storage: Storage,
    *,
    price: float | None = None,
    records: Sequence[PartitionRecord] | None = None,
    seconds: float = math.inf,
) -> Facts:
    """What the report of the build is made from, read from storage alone."""
    record = build_record.require_build(storage)
    runs = run_records.read_runs(storage)
    if records is None:
        records = manifest.read_committed(storage, record)
    survey = take_survey(storage, records, samples=_SAMPLES, seconds=seconds)
    return Facts(
        url=storage.url,
        build=record,
        runs=runs,
        records=records,
        num_rows=max([run_records.rows_wanted(runs), *(found.stop for found in records)]),
        survey=survey,
        today=layout.now()[:10],
        lives=_lives(storage, [run.number for run in runs]),
        written={
            item.key: item.modified for item in storage.list_objects(DATA_PREFIX) if item.modified is not None
        },
        rejects=_rejects(storage),
        repeated=most_repeated(storage, records, survey, _REPEATED),
        price=price,
    )


def _rejects(storage: Storage) -> list[Reject]:
    """A few for each reason, from different parts of the build where there are such."""
    keys = spread_order(reject_keys(storage))[:_REJECT_FILES]
    return by_reason(in_turns(read_rejects(storage, [key]) for key in keys), _SHOWN_REJECTS)


def _lives(storage: Storage, runs: list[int]) -> Mapping[int, ActorHistoryRecord]:
    found = {run: actor_history.read_actor_history(storage, run) for run in runs}
    return {run: record for run, record in found.items() if record}
