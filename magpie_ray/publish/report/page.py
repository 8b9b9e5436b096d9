"""Facts and drawings to one HTML page that needs nothing else.

Pure. What always holds: no text of the build is markup. It is escaped, its control characters are shown, and
a policy in the page lets a browser run and fetch nothing but the page's own style and script, known by their
hashes. Without JavaScript everything is there to read.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby

import jinja2
import yaml
from markupsafe import Markup

from magpie_ray.dataset.reader import Record, messages_of
from magpie_ray.publish.report import tables
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.rows import length_rows, word_tree
from magpie_ray.publish.report.timeline import timeline
from magpie_ray.utils.text import percent, safe, shortened, visible

# A page of fifty rows of six messages stays under a megabyte.
_ROW_CHARACTERS = 8_000
_MESSAGE_CHARACTERS = 3_000
_REASONING_CHARACTERS = 1_500
_SHOWN_LOSSES = 200


def render(facts: Facts, drawings: Mapping[str, str], *, shown_slots: int) -> str:
    """The page. `drawings`: SVG by name; one that ends in -narrow stands in for its namesake."""
    css, script = (Markup(_file(name)) for name in ("page.css", "page.js"))
    placed, num_slots = timeline(facts, shown_slots)
    losses = tables.loss_rows(facts)
    whole = facts.survey.rows == facts.tally.rows
    context = {
        "facts": facts,
        "name": _name(facts.url),
        "what": tables.what(facts),
        "policy": _policy(css, script),
        "css": css,
        "script": script,
        "charts": {name: _figure(name, drawings) for name in drawings if not name.endswith("-narrow")},
        "tiles": tables.tiles(facts),
        "runs": tables.run_rows(facts),
        "num_slots": num_slots,
        "shown_slots": len({life.key for life in placed}),
        "losses": losses[:_SHOWN_LOSSES],
        "more_losses": max(0, len(losses) - _SHOWN_LOSSES),
        "cost_note": tables.cost_note(facts),
        "costs": tables.costs(facts),
        "surveyed": tables.surveyed(facts),
        "whole": whole,
        "lengths": length_rows(facts.survey),
        "attempts": sorted(facts.survey.attempts.items()),
        "rejects": _rejects(facts),
        "words": word_tree(facts.survey, first=40, second=8),
        "samples": [_sample(row) for row in facts.survey.samples],
        "about": tables.about(facts),
        "config": yaml.safe_dump(dict(facts.build.config), allow_unicode=True, sort_keys=False, width=100),
        "chat_format": yaml.safe_dump(
            {name: _seen(value) for name, value in facts.build.chat_format.items()},
            allow_unicode=True,
            sort_keys=False,
            width=100,
        ),
    }
    context["sections"] = _sections(context)
    return _environment().get_template("page.html").render(context)


@cache
def _environment() -> jinja2.Environment:
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
        "percent": percent,
        "quoted": json.dumps,
        "short_text": shortened,
    }
    return environment


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(css: str, script: str) -> str:
    """Nothing is fetched, and nothing runs but what has these hashes; the icon is empty."""
    style, code = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{code}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _figure(name: str, drawings: Mapping[str, str]) -> Markup:
    narrow = drawings.get(f"{name}-narrow")
    drawn = drawings[name]  # cleaned when it was drawn
    if narrow is None:
        return Markup(drawn)
    return Markup(f'<div class="wide">{drawn}</div><div class="narrow">{narrow}</div>')


def _sections(context: Mapping[str, object]) -> list[tuple[str, str]]:
    facts = context["facts"]
    assert isinstance(facts, Facts)
    there = {
        "work": ("How it was made", True),
        "cost": ("Cost", True),
        "lengths": ("Lengths", facts.survey.rows),
        "rejected": ("Accepted and rejected", facts.tally.attempts or facts.rejects),
        "mix": ("System prompts" if facts.prompts else "Sampling", facts.prompts or facts.samplings),
        "words": ("Instructions", facts.survey.rows),
        "conversations": ("Conversations", facts.survey.rows),
        "build": ("The build", True),
    }
    return [(name, title) for name, (title, shown) in there.items() if shown]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    role: str
    text: str
    note: str
    reasoning: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    row_id: int
    key: str
    messages: Sequence[_Message]


def _sample(row: Record) -> _Sample:
    endings = row.get("finish_reasons")
    tokens = row.get("completion_tokens")
    thoughts = iter(reasoning) if isinstance(reasoning := row.get("reasoning"), list) else iter(())
    messages, left = list[_Message](), _ROW_CHARACTERS
    told = messages_of(row)
    generated = len(endings) if isinstance(endings, list) else 0
    for index, (role, text) in enumerate(told, generated - len(told)):
        note = ""
        if index >= 0 and isinstance(endings, list) and isinstance(tokens, list) and index < len(tokens):
            note = f"{tokens[index]:,} tokens" + (", cut" if endings[index] == "length" else "")
        shown = shortened(text, min(left, _MESSAGE_CHARACTERS))
        left = max(80, left - len(shown))
        thought = str(next(thoughts, None) or "") if role == "assistant" else ""
        messages.append(
            _Message(role=role, text=shown, note=note, reasoning=shortened(thought, _REASONING_CHARACTERS))
        )
    return _Sample(
        row_id=int(str(row["row_id"])), key=str(row.get("system_prompt_key") or ""), messages=messages
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Example:
    row_id: object
    attempt: object
    key: str
    role: str
    text: str
    before: Sequence[tuple[str, str]]


def _rejects(facts: Facts) -> list[tuple[str, list[_Example]]]:
    """Examples by reason."""
    ordered = sorted(facts.rejects, key=lambda reject: (str(reject["reason"]), int(str(reject["row_id"]))))
    found = []
    for reason, group in groupby(ordered, lambda reject: str(reject.get("reason"))):
        examples = []
        for reject in group:
            before = reject.get("messages")
            examples.append(
                _Example(
                    row_id=reject.get("row_id"),
                    attempt=reject.get("attempt"),
                    key=str(reject.get("system_prompt_key") or ""),
                    role=str(reject.get("role")),
                    text=shortened(str(reject.get("text") or ""), 1_000) or "(no text)",
                    before=[
                        (str(message["role"]), shortened(str(message["content"]), 300)) for message in before
                    ]
                    if isinstance(before, list)
                    else [],
                )
            )
        found.append((reason, examples))
    return found


def _seen(value: object) -> object:
    return visible(value) if isinstance(value, str) else list(value) if isinstance(value, tuple) else value


def _name(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2] or url
