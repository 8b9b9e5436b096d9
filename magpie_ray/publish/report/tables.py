"""The figures and sentences that a report shows beside its charts, as text.

Pure.
"""

from typing import Any, NamedTuple

from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.score_survey import MILLION
from magpie_ray.utils.text import NO_FIGURE, bytes_text, percent, short_number, span_text, three_digits


class Tile(NamedTuple):
    """A figure on the first screen."""

    name: str
    value: str
    note: str


def tiles(facts: Facts) -> list[Tile]:
    """The figures that readers look for first."""
    tally, survey = facts.tally, facts.survey
    if facts.build.job == "score":
        lacking = percent(tally.unanswered / tally.rows) if tally.rows else NO_FIGURE
        without = Tile("Without a score", lacking, f"{tally.unanswered:,} rows lack a value")
        return [_rows_tile(facts), without, _hours_tile(facts), _rate_tile(facts)]
    roles = f"{short_number(tally.user_tokens)} user, {short_number(tally.assistant_tokens)} assistant"
    accepted = percent(facts.accepted) if tally.attempts else NO_FIGURE
    repeats = percent(survey.duplicates / survey.rows) if survey.rows else NO_FIGURE
    repeats_note = f"{survey.duplicates:,} of {survey.rows:,} instructions occur earlier"
    return [
        _rows_tile(facts),
        Tile("Tokens", short_number(tally.tokens), roles),
        Tile("Accepted", accepted, f"of {tally.attempts:,} attempts"),
        Tile("Duplicates", repeats, repeats_note),
        _hours_tile(facts),
        _rate_tile(facts),
    ]


def _rows_tile(facts: Facts) -> Tile:
    rows = facts.tally.rows
    note = "all rows of the build"
    if not facts.complete:
        note = f"of {facts.num_rows:,}, {percent(rows / max(1, facts.num_rows))}"
    return Tile("Rows", f"{rows:,}", note)


def _hours_tile(facts: Facts) -> Tile:
    if facts.on_gpus:
        return Tile("GPU hours", three_digits(facts.gpu_hours), _cost_tile(facts))
    time = span_text(facts.actor_hours * 3600) if facts.histories else NO_FIGURE
    return Tile("Actor time", time, _cost_tile(facts))


def _rate_tile(facts: Facts) -> Tile:
    if not (seconds := facts.up_seconds):
        return Tile("Rows/s", NO_FIGURE, "no run has ended")
    work = f"{span_text(facts.seconds)} of work"
    if facts.build.job != "score":  # whose tokens are those of its requests, one each
        work = f"{short_number(facts.tally.tokens / seconds)} tokens/s, {work}"
    return Tile("Rows/s", three_digits(facts.tally.rows / seconds), work)


def _cost_tile(facts: Facts) -> str:
    if not facts.histories:
        return "not recorded"
    if facts.cost is not None:
        return f"{facts.cost:,.2f} at {facts.price:g} an hour"
    return "all runs" if not facts.unrecorded else f"{len(facts.unrecorded)} runs not recorded"


def cost_note(facts: Facts) -> str:
    note = "An actor's time counts from when it gets a node until it ends, the start of its engine included."
    if facts.unrecorded:
        runs = ", ".join(map(str, facts.unrecorded[:20]))
        note += f" Not recorded for run {runs}: the true figures are higher."
    if facts.on_gpus and facts.price is None:
        note += " For the cost in money: magpie-ray report --price-per-gpu-hour."
    return note


def costs(facts: Facts) -> dict[str, str]:
    """What the build took, by name."""
    tally, writes = facts.tally, facts.build.job != "score"
    costs = {"Actor time, all runs": span_text(facts.actor_hours * 3600)} if facts.histories else {}
    if facts.on_gpus:
        hours = facts.gpu_hours
        costs["GPU hours"] = three_digits(hours)
        if hours and tally.rows:
            costs["Rows per GPU hour"] = f"{tally.rows / hours:,.0f}"
            if writes:
                costs["Tokens/s per GPU"] = f"{tally.tokens / hours / 3600:,.0f}"
            costs["GPU hours per million rows"] = three_digits(hours / tally.rows * 1e6)
    if facts.cost is not None and tally.rows:
        costs["Price of a GPU hour, as given"] = f"{facts.price:g}"
        costs["Cost"] = f"{facts.cost:,.2f}"
        costs["Cost per million rows"] = f"{facts.cost / tally.rows * 1e6:,.2f}"
        if writes:
            costs["Cost per million tokens"] = f"{facts.cost / max(1, tally.tokens) * 1e6:,.4f}"
    if facts.engine_stats.steps:
        costs["Engines"] = str(facts.engine_stats)
    costs["Size of data/"] = (
        f"{bytes_text(sum(r.size for r in facts.records))} in {len(facts.records):,} files"
    )
    return costs


def surveyed(facts: Facts) -> str:
    """Which rows the figures of the survey cover."""
    rows, all_rows = facts.survey.rows, facts.tally.rows
    if rows == all_rows:
        return f"Over all {rows:,} rows."
    return f"Over {rows:,} of {all_rows:,} rows, in files evenly spread over the build."


def subject(facts: Facts) -> str:
    """The kind of rows, and the model that wrote them."""
    identity = facts.build.identity
    if answers := facts.build.answers:
        kind = "Answers" if answers == 1 else f"{answers} answers to each instruction"
        return f"{kind} by {identity.get('model.name', 'a model that is not named')}"
    if facts.build.job == "score":
        return f"Scores by {identity.get('model.name', 'a model that is not named')}"
    turns = identity.get("n_turns", 1)
    kind = f"{turns}-turn conversations" if turns != 1 else "Instructions and answers"
    if identity.get("only_instruction"):
        kind = "Instructions"
    return f"{kind} by {identity.get('model.name', 'a model that is not named')}"


class LabelShare(NamedTuple):
    """A label of a score pass: its rows, their share, and how probable it was on average."""

    label: str
    rows: int
    share: float
    probability: float | None


def labels(facts: Facts) -> dict[str, list[LabelShare]]:
    """The labels of each column that has some, in the order of the config; "(none)" for rows without."""
    columns: Any = facts.build.identity.get("columns") or {}
    shares = dict[str, list[LabelShare]]()
    for name, counts in facts.survey.labels.items():
        total, sums = sum(counts.values()), facts.survey.probabilities[name]
        shares[name] = [
            LabelShare(
                label="(none)" if label is None else label,
                rows=(rows := counts.get(label, 0)),
                share=rows / max(1, total),
                probability=sums[label] / MILLION / rows if rows and label is not None else None,
            )
            for label in [*columns[name]["choice"], *([None] if None in counts else [])]
        ]
    return shares


def about(facts: Facts) -> dict[str, str]:
    """The build's record, by name."""
    record = facts.build
    model = str(record.identity.get("model.name", NO_FIGURE))
    if commit := record.identity.get("model.commit"):
        model += f" at {commit}"
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return {
        "Output": facts.url,
        "Fingerprint": record.fingerprint,
        "Model": model,
        "Begun": record.created,
        "Columns": ", ".join(record.columns),
        "Files": f"up to {record.rows_per_partition:,} rows each, {record.compression}",
        "Made with": versions or NO_FIGURE,
    }
