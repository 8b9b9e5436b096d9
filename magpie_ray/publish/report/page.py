"""Facts and drawings to one HTML page that needs nothing else.

Pure. Invariants: no text of the build is markup. It is escaped and its control characters are shown; a policy
in the page lets a browser fetch nothing, and run nothing but the page's own style and script, known by their
hashes. Everything can be read without JavaScript.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
import yaml
from markupsafe import Markup

from magpie_ray.counters import EngineStats
from magpie_ray.dataset.reader import said_in
from magpie_ray.publish.first_words import word_tree
from magpie_ray.publish.histogram import mean, quantile
from magpie_ray.publish.report import tables
from magpie_ray.publish.report.advice import advice
from magpie_ray.publish.report.charts_work import MAX_SLOTS, timeline
from magpie_ray.publish.report.facts import Facts
from magpie_ray.utils.text import NO_FIGURE, percent, safe, shortened, span_text, three_digits, visible

# A page of fifty rows of six messages stays under a megabyte.
_ROW_CHARACTERS = 8_000
_MESSAGE_CHARACTERS = 3_000
_LEAST_CHARACTERS = 80
_REASONING_CHARACTERS = 1_500


def render(facts: Facts, drawings: Mapping[str, Sequence[Markup]]) -> str:
    """The page. `drawings`: SVG by the chart's name; a second one stands in for it on narrow screens."""
    css, script = Markup(_file("page.css")), Markup(_file("page.js"))
    lives, num_slots = timeline(facts, MAX_SLOTS)
    chat_format = {
        name: visible(value) if isinstance(value, str) else value
        for name, value in facts.build.chat_format.items()
    }
    return _template().render(
        facts=facts,
        name=facts.url.rstrip("/").rpartition("/")[2] or facts.url,
        subject=tables.subject(facts),
        policy=_policy(css, script),
        css=css,
        script=script,
        charts=drawings,
        sections=_sections(facts),
        tiles=tables.tiles(facts),
        advice=advice(facts),
        num_slots=num_slots,
        shown_slots=len({life.key for life in lives}),
        cost_note=tables.cost_note(facts),
        costs=tables.costs(facts),
        surveyed=tables.surveyed(facts),
        labels=tables.labels(facts),
        words=word_tree(facts.survey.first_words, first=40, second=8),
        about=tables.about(facts),
        config=_yaml(facts.build.config),
        chat_format=_yaml(chat_format),
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: safe(value) if type(value) is str else value,
    )
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "mean": mean,
        "messages": _messages,
        "occupancy": lambda engines: EngineStats(**engines).occupancy,
        "percent": percent,
        "quantile": quantile,
        "quoted": json.dumps,
        "shortened": shortened,
        "span": span_text,
        "three_digits": three_digits,
    }
    environment.globals["no_figure"] = NO_FIGURE
    return environment.get_template("page.html")


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _yaml(values: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(values), allow_unicode=True, sort_keys=False, width=100)


def _policy(css: str, script: str) -> str:
    """A browser fetches nothing, not even an icon, and runs only the style and script with these hashes."""
    style, code = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{code}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _sections(facts: Facts) -> dict[str, str]:
    """The titles of the sections that have something to show, by id."""
    sections = {
        "selection": ("What the query took", facts.taken),
        "work": ("How it was made", True),
        "cost": ("Cost", True),
        "scores": ("Scores", facts.survey.labels or facts.survey.rewards),
        "lengths": ("Lengths", facts.survey.tokens),
        "rejected": (
            ("Rows without a score", facts.tally.unanswered or facts.rejects)
            if facts.build.job == "score"
            else ("Accepted and rejected", facts.tally.attempts or facts.rejects)
        ),
        "mix": (
            "System prompts" if facts.prompts else "Sampling settings",
            facts.prompts or facts.samplings,
        ),
        "words": ("Instructions", facts.survey.first_words),
        "conversations": ("Conversations", facts.survey.first_words),
        "build": ("The build", True),
    }
    return {id: title for id, (title, is_shown) in sections.items() if is_shown}


class _Message(NamedTuple):
    role: str
    text: str
    note: str
    reasoning: str


def _messages(row: Mapping[str, Any]) -> Iterator[_Message]:
    """The messages of a surveyed row, shortened."""
    left = _ROW_CHARACTERS
    for said in said_in(dict(row)):
        note = "" if said.tokens is None else f"{said.tokens:,} tokens"
        note += ", cut" if said.finish_reason == "length" else ""
        text = "(no answer was accepted)" if said.text is None else said.text
        shown = shortened(text, min(left, _MESSAGE_CHARACTERS))
        left = max(_LEAST_CHARACTERS, left - len(shown))
        yield _Message(said.role, shown, note, shortened(said.reasoning, _REASONING_CHARACTERS))
