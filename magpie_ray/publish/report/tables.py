"""What a report says in words and tables beside its charts.

Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from magpie_ray.publish.report.facts import Facts
from magpie_ray.utils.text import (
    NO_FIGURE,
    bytes_text,
    percent,
    short_number,
    shortened,
    span_text,
    three_digits,
)

_SHOWN_RUNS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    name: str
    value: str
    note: str


def tiles(facts: Facts) -> list[Tile]:
    """The first things that one wants to know."""
    tally, survey = facts.tally, facts.survey
    rows_note = "all rows of the build"
    if not facts.complete:
        rows_note = f"of {facts.num_rows:,}, {percent(tally.rows / max(1, facts.num_rows))}"
    if facts.on_gpus:
        hours = Tile(name="GPU hours", value=three_digits(facts.gpu_hours), note=_cost_tile(facts))
    else:
        time = span_text(facts.actor_hours * 3600) if facts.lives else NO_FIGURE
        hours = Tile(name="Time of actors", value=time, note=_cost_tile(facts))
    return [
        Tile(name="Rows", value=f"{tally.rows:,}", note=rows_note),
        Tile(
            name="Tokens",
            value=short_number(tally.tokens),
            note=f"{short_number(tally.user_tokens)} user, {short_number(tally.assistant_tokens)} assistant",
        ),
        Tile(
            name="Accepted",
            value=percent(facts.accepted) if tally.attempts else NO_FIGURE,
            note=f"of {tally.attempts:,} attempts",
        ),
        Tile(
            name="Duplicates",
            value=percent(survey.duplicates / survey.rows) if survey.rows else NO_FIGURE,
            note=f"{survey.duplicates:,} of {survey.rows:,} instructions occur earlier",
        ),
        hours,
        Tile(
            name="Rows/s",
            value=three_digits(tally.rows / facts.up_seconds) if facts.up_seconds else NO_FIGURE,
            note=f"{short_number(tally.tokens / facts.up_seconds)} tokens/s, "
            f"{span_text(facts.seconds)} of work"
            if facts.up_seconds
            else "no run has ended",
        ),
    ]


def _cost_tile(facts: Facts) -> str:
    if not facts.lives:
        return "not recorded"
    if facts.cost is not None:
        return f"{facts.cost:,.2f} at {facts.price:g} an hour"
    return "all runs" if not facts.unrecorded else f"{len(facts.unrecorded)} runs not recorded"


def cost_note(facts: Facts) -> str:
    told = (
        "An actor's time counts from when it has found its place until it ends, starting its engine included."
    )
    if facts.unrecorded:
        runs = ", ".join(map(str, facts.unrecorded[:20]))
        told += f" Not recorded for run {runs}: the true figures are higher."
    if facts.on_gpus and facts.price is None:
        told += " For money: magpie-ray report --price-per-gpu-hour."
    return told


def costs(facts: Facts) -> list[tuple[str, str]]:
    tally = facts.tally
    found = [("Time of all actors", span_text(facts.actor_hours * 3600))] if facts.lives else []
    if facts.on_gpus:
        hours = facts.gpu_hours
        found.append(("GPU hours", three_digits(hours)))
        if hours and tally.rows:
            found.append(("Rows a GPU hour", f"{tally.rows / hours:,.0f}"))
            found.append(("Tokens/s a GPU", f"{tally.tokens / hours / 3600:,.0f}"))
            found.append(("GPU hours a million rows", three_digits(hours / tally.rows * 1e6)))
    if facts.cost is not None and tally.rows:
        found.append(("Price of a GPU hour, as given", f"{facts.price:g}"))
        found.append(("Cost", f"{facts.cost:,.2f}"))
        found.append(("Cost of a million rows", f"{facts.cost / tally.rows * 1e6:,.2f}"))
        found.append(("Cost of a million tokens", f"{facts.cost / max(1, tally.tokens) * 1e6:,.4f}"))
    if facts.engine_use.steps:
        found.append(("Engines", str(facts.engine_use)))
    found.append(("Size of data/", f"{bytes_text(facts.size)} in {len(facts.records):,} files"))
    return found


def surveyed(facts: Facts) -> str:
    rows, all_rows = facts.survey.rows, facts.tally.rows
    if rows == all_rows:
        return f"Over all {rows:,} rows."
    return f"Over {rows:,} of {all_rows:,} rows, in files evenly spread over the build."


def what(facts: Facts) -> str:
    identity = facts.build.identity
    turns = identity.get("n_turns", 1)
    kind = f"{turns}-turn conversations" if turns != 1 else "Instructions and answers"
    if identity.get("only_instruction"):
        kind = "Instructions"
    return f"{kind} by {identity.get('model.name', 'a model that is not named')}"


def about(facts: Facts) -> list[tuple[str, str]]:
    record = facts.build
    identity = record.identity
    model = f"{identity.get('model.name', NO_FIGURE)}"
    if identity.get("model.commit"):
        model += f" at {identity['model.commit']}"
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    return [
        ("Output", facts.url),
        ("Fingerprint", record.fingerprint),
        ("Model", model),
        ("Begun", record.created),
        ("Columns", ", ".join(record.columns)),
        ("Files", f"up to {record.rows_per_partition:,} rows each, {record.compression}"),
        ("Made with", versions or NO_FIGURE),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    number: int
    began: str
    took: str
    outcome: str
    rows: int
    actors: str
    replaced: str
    gpu_hours: str
    filled: str
    host: str


def run_rows(facts: Facts) -> list[RunRow]:
    """The last ones, of very many."""
    rows = []
    for stretch in facts.stretches[-_SHOWN_RUNS:]:
        run, lives = stretch.run, facts.lives.get(stretch.run.number)
        hours = facts.gpu_hours_of(run)
        lost = sum(life.end in ("lost", "left") for life in lives.lives) if lives else 0
        outcome = run.outcome if run.outcome != "running" else "running, or ended without a word"
        rows.append(
            RunRow(
                number=run.number,
                began=run.started[:16].replace("T", " "),
                took=span_text(stretch.seconds),
                outcome=outcome + (f": {shortened(run.cause, 300)}" if run.cause else ""),
                rows=facts.rows_of(run),
                actors=f"{len({life.slot for life in lives.lives}):,}" if lives else NO_FIGURE,
                replaced=f"{lost:,}" if lives else NO_FIGURE,
                gpu_hours=three_digits(hours) if hours is not None else NO_FIGURE,
                filled=_filled(run.engines),
                host=run.host,
            )
        )
    return rows


def _filled(engines: Mapping[str, int] | None) -> str:
    if not engines or not engines.get("slots"):
        return NO_FIGURE
    return percent(engines.get("running", 0) / engines["slots"])


@dataclass(frozen=True, kw_only=True, slots=True)
class LossRow:
    run: int
    slot: int
    node: str
    up: str
    cause: str


def loss_rows(facts: Facts) -> list[LossRow]:
    return [
        LossRow(
            run=number,
            slot=life.slot,
            node=life.node or NO_FIGURE,
            up=span_text(life.ended - life.ready) if life.ready is not None and life.ended else NO_FIGURE,
            cause=life.cause or str(life.end),
        )
        for number, lives in facts.lives.items()
        for life in lives.lives
        if life.end in ("lost", "left")
    ]
