"""The report of a build: read its facts, survey its rows, draw, write `_magpie/report.html`.

Wires the other modules: facts (the figures), charts_work and charts_rows (what is drawn), svg (how), tables
and page (HTML). Invariants: the page is one file that fetches nothing. The part of a build that is read is
bounded, however large the build; nothing but the page is written.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from magpie_ray.dataset import actor_history, build_record, layout, manifest, run_records
from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.dataset.rejects import Reject, by_reason, in_turns, read_rejects, reject_keys
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.dataset.selection_record import read_selection
from magpie_ray.errors import StorageError
from magpie_ray.publish.report import charts_rows, charts_scores, charts_work
from magpie_ray.publish.report.advice import advice
from magpie_ray.publish.report.chart import Chart
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.page import render
from magpie_ray.publish.report.svg import DRAWING_SECONDS, draw
from magpie_ray.publish.score_survey import surveyed_scores
from magpie_ray.publish.survey_reader import most_repeated, spread_order, take_survey
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, PartitionRecord

log = logging.getLogger(__name__)

_SAMPLES = 50
_REPEATED = 20
_REJECTS_PER_REASON = 3
# Each holds the rejects of one partition.
_REJECT_FILES = 60


class Report(NamedTuple):
    """A report that was written: its location, what it says on top (see advice), and its facts."""

    location: str
    advice: Sequence[str]
    facts: Facts


def write_report(
    storage: Storage,
    *,
    price: float | None = None,
    records: Sequence[PartitionRecord] | None = None,
    seconds: float = math.inf,
    drawing_seconds: float = DRAWING_SECONDS,
    to: Path | None = None,
) -> Report:
    """Write the report of the build at this output, over an earlier one; or to the local file `to`.

    price: of a GPU hour, in any currency. records: the committed partitions; None reads them. seconds: after
    these no further file is surveyed. drawing_seconds: the most that drawing may take.

    Raises PreflightError when there is no build; CorruptBuildError when its files contradict each other;
    ReportError when the charts can't be drawn; StorageError.
    """
    facts = read_facts(storage, price=price, records=records, seconds=seconds)
    page = render(facts, draw(charts_of(facts), seconds=drawing_seconds))
    if to is None:
        storage.replace(REPORT_KEY, page.encode())
        return Report(storage.display(REPORT_KEY), advice(facts), facts)
    try:
        to.write_text(page, encoding="utf-8")
    except OSError as exc:
        raise StorageError(f"{to}: can't be written to: {exc}") from exc
    return Report(str(to), advice(facts), facts)


def charts_of(facts: Facts) -> dict[str, Chart]:
    """The charts that have something to show, by name."""
    charts = {
        "rows": charts_work.rows(facts),
        "rate": charts_work.rate(facts),
        "actors": charts_work.actors(facts),
        "engines": charts_work.engines(facts),
        "user-tokens": charts_rows.lengths(facts, "user"),
        "assistant-tokens": charts_rows.lengths(facts, "assistant"),
        "reasons": charts_rows.reasons(facts),
        "prompts": charts_rows.prompts(facts),
        "words": charts_rows.words(facts),
        **{f"reward-{name}": charts_scores.rewards(facts, name) for name in facts.survey.rewards},
    }
    return {name: chart for name, chart in charts.items() if chart}


def read_facts(
    storage: Storage,
    *,
    price: float | None = None,
    records: Sequence[PartitionRecord] | None = None,
    seconds: float = math.inf,
) -> Facts:
    """The facts of the build, read from storage alone. Arguments and errors as of `write_report`."""
    record = build_record.require_build(storage)
    runs, lost_runs = _runs(storage)
    if records is None:
        records = manifest.read_committed(storage, record)
    survey = take_survey(
        storage,
        records,
        samples=_SAMPLES,
        answers=record.answers,
        scores=surveyed_scores(record),
        seconds=seconds,
    )
    histories = {run.number: actor_history.read_actor_history(storage, run.number) for run in runs}
    objects = storage.list_objects(DATA_PREFIX)
    return Facts(
        url=storage.url,
        build=record,
        runs=runs,
        records=records,
        num_rows=run_records.rows_wanted(runs, records),
        survey=survey,
        today=layout.now()[:10],
        histories={run: history for run, history in histories.items() if history},
        written={item.key: item.modified for item in objects if item.modified is not None},
        rejects=_rejects(storage),
        lost_runs=lost_runs,
        repeated=most_repeated(storage, records, survey, _REPEATED),
        price=price,
        taken=read_selection(storage),
    )


def _runs(storage: Storage) -> tuple[list[RunRecord], set[int]]:
    """The runs that can be understood, and the numbers of those whose driver is gone without a record."""
    runs, lost = list[RunRecord](), set[int]()
    for status in run_records.read_run_statuses(storage):
        if isinstance(status, str):
            log.warning("%s; the run is left out", status)
            continue
        runs.append(status.record)
        if status.outcome == "lost":
            lost.add(status.record.number)
    return runs, lost


def _rejects(storage: Storage) -> list[Reject]:
    """A few examples for each reason, from different parts of the build where there are such."""
    keys = spread_order(reject_keys(storage))[:_REJECT_FILES]
    return by_reason(in_turns(read_rejects(storage, [key]) for key in keys), _REJECTS_PER_REASON)
