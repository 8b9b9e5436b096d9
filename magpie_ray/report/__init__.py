"""The report of a build: read what there is, survey the rows, draw, write `_magpie/report.html`.

A thin shell around facts (the figures), charts (what is drawn), drawing (how), tables and page (HTML). What
always holds: the page is one file that fetches nothing; of a build of any size a bounded part is read, and
nothing else is written.
"""

import math
from collections.abc import Mapping, Sequence

from magpie_ray import build, lives, manifest
from magpie_ray.lives import LivesRecord
from magpie_ray.rejects import Reject, by_reason, in_turns, read_rejects, reject_keys
from magpie_ray.report.charts import charts_of
from magpie_ray.report.charts_work import MAX_SLOTS
from magpie_ray.report.drawing import draw
from magpie_ray.report.facts import Facts
from magpie_ray.report.page import render
from magpie_ray.storage import Storage
from magpie_ray.survey_reader import most_repeated, spread_order, take_survey
from magpie_ray.types import DATA_PREFIX, PartitionRecord

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
    record = build.require_build(storage)
    runs = build.read_runs(storage)
    if records is None:
        records = manifest.read_committed(storage, record)
    survey = take_survey(storage, records, samples=_SAMPLES, seconds=seconds)
    return Facts(
        url=storage.url,
        build=record,
        runs=runs,
        records=records,
        num_rows=max([build.rows_wanted(runs), *(found.stop for found in records)]),
        survey=survey,
        today=build.now()[:10],
        lives=_lives(storage, [run.number for run in runs]),
        written={item.key: item.modified for item in storage.list(DATA_PREFIX) if item.modified is not None},
        rejects=_rejects(storage),
        repeated=most_repeated(storage, records, survey, _REPEATED),
        price=price,
    )


def _rejects(storage: Storage) -> list[Reject]:
    """A few for each reason, from different parts of the build where there are such."""
    keys = spread_order(reject_keys(storage))[:_REJECT_FILES]
    return by_reason(in_turns(read_rejects(storage, [key]) for key in keys), _SHOWN_REJECTS)


def _lives(storage: Storage, runs: list[int]) -> Mapping[int, LivesRecord]:
    found = {run: lives.read_lives(storage, run) for run in runs}
    return {run: record for run, record in found.items() if record}
