"""The cost of each acceptance rule. Like writing, acceptance happens beside the engine's loop.

All rules are on and hardly any message is rejected, so every rule sees every message whole. The rule
`language` reads more of a message that may be in another language, so that case has its own table.
"""

import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.storage import Text
from magpie_ray.acceptance import Dialogue, Rule, RuleContext, Utterance, build_rules
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.types import Message, Role

_ROOT = Path(__file__).resolve().parents[2]
# A message of English with 470 tokens has about so many characters.
_CHARACTERS, _TOKENS = 2000, 470
_MESSAGES, _REPEATS = 120, 40
_TURNS = 3
# Markers and special tokens as Llama 3 has them.
_MARKERS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>")
_SPECIAL_TOKENS = frozenset(range(128_000, 128_256))
_TOKEN_IDS = random.Random(0).choices(range(min(_SPECIAL_TOKENS)), k=_TOKENS)


def run() -> Result:
    """Some seconds."""
    labelled = _labelled()
    rules = _rules(language=sorted({"en", *labelled}))
    kinds = {"english": _english(), "code": _code(), "forty_languages": _languages(labelled)}
    in_one_language = {**kinds, "forty_languages": _in_one_language(labelled)}
    costs = {
        name: {
            kind: _microseconds(rule, texts)
            for kind, texts in (in_one_language if name == "language" else kinds).items()
        }
        for name, rule in rules.items()
    }
    average = {name: sum(cost.values()) / len(cost) for name, cost in costs.items()}
    rows: list[Mapping[str, Cell]] = [
        {"rule": name, **cost, "average": average[name]} for name, cost in costs.items()
    ]
    together = {kind: sum(cost[kind] for cost in costs.values()) for kind in kinds}
    rows.append({"rule": "all of them", **together, "average": sum(average.values())})
    title = f"CPU microseconds for a message of {_CHARACTERS:,} characters, the user's of turn {_TURNS}"
    claim = Claim(
        what="microseconds of the slowest acceptance rule for a message of 2,000 characters",
        value=max(average.values()),
        must_be="at most",
        bound=20.0,
    )
    notes = [
        "english: docstrings and manual of Python; code: its modules; forty languages: labelled ones, mixed, "
        "and for the rule `language` each message in one language",
        f"each rule alone, on {_MESSAGES} messages, the best of {_REPEATS} rounds; earlier messages of the "
        "conversation are of the same kind and length",
    ]
    return Result(
        name="acceptance",
        tables=[Table(title=title, rows=rows), _language_table(kinds)],
        claims=[claim],
        notes=notes,
    )


def _language_table(kinds: Mapping[str, Sequence[str]]) -> Table:
    """What the rule `language` costs where English is wanted, by what a message is."""
    rule = _rules(language=["en"])["language"]
    half = _CHARACTERS // 2
    others = zip(kinds["english"], kinds["forty_languages"], strict=False)
    messages = {
        "English": kinds["english"],
        "code": kinds["code"],
        "English, then other languages": [english[:half] + other[:half] for english, other in others],
        "other languages": kinds["forty_languages"],
    }
    rows: list[Mapping[str, Cell]] = [
        {
            "message": name,
            "rejected": sum(rule(_utterance(text), Dialogue()) is not None for text in texts) / len(texts),
            "microseconds": _microseconds(rule, texts),
        }
        for name, texts in messages.items()
    ]
    return Table(title="the rule `language` where English is wanted", rows=rows)


def _rules(*, language: Sequence[str]) -> Mapping[str, Rule]:
    on = {"length": {"min_user": 1}, "language": {"is": [*language]}, "refusal": {"assistant": True}}
    return build_rules(
        AcceptanceConfig.model_validate({"rules": on}),
        RuleContext(markers=_MARKERS, special_token_ids=_SPECIAL_TOKENS, role_words=("assistant",)),
    )


def _english() -> list[str]:
    return _cut(Text(seed=0).source)


def _code() -> list[str]:
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    return _cut("\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files))


def _labelled() -> dict[str, list[str]]:
    """The labelled good messages of languages other than English."""
    files = sorted((_ROOT / "tests/acceptance/good").glob("*.yaml"))
    texts = dict[str, list[str]]()
    for entry in [item for file in files for item in yaml.safe_load(file.read_text(encoding="utf-8"))]:
        if isinstance(entry, dict) and (language := entry.get("language", "en")) != "en":
            texts.setdefault(language, []).append(entry.get("user") or entry["assistant"])
    return texts


def _languages(labelled: Mapping[str, Sequence[str]]) -> list[str]:
    texts = [text for listed in labelled.values() for text in listed]
    draw, joined = random.Random(0), list[str]()
    while sum(map(len, joined)) < _CHARACTERS * _MESSAGES:
        joined += draw.sample(texts, len(texts))
    return _cut("\n".join(joined))


def _in_one_language(labelled: Mapping[str, Sequence[str]]) -> list[str]:
    """A message of each language: its labelled messages, over and over."""
    joined = ["\n".join(texts) + "\n" for texts in labelled.values()]
    return [(text * (1 + _CHARACTERS // len(text)))[:_CHARACTERS] for text in joined]


def _cut(text: str) -> list[str]:
    """Messages from the whole text, evenly spread."""
    step = max(_CHARACTERS, len(text) // _MESSAGES)
    starts = range(0, len(text) - _CHARACTERS, step)
    return [text[start : start + _CHARACTERS].strip() for start in starts][:_MESSAGES]


def _microseconds(rule: Rule, texts: Sequence[str]) -> float:
    messages = []
    for index, text in enumerate(texts):
        before = [texts[(index + other) % len(texts)] for other in range(1, 2 * _TURNS - 1)]
        dialogue = Dialogue(messages=tuple(_message(i, said) for i, said in enumerate(before)))
        messages.append((_utterance(text), dialogue))
    seconds = []
    for _ in range(_REPEATS):
        started = time.process_time()
        for utterance, dialogue in messages:
            rule(utterance, dialogue)
        seconds.append(time.process_time() - started)
    return 1e6 * min(seconds) / len(messages)


def _utterance(text: str) -> Utterance:
    return Utterance(role="user", text=text, token_ids=_TOKEN_IDS, finish_reason="stop")


def _message(index: int, text: str) -> Message:
    role: Role = "assistant" if index % 2 else "user"
    return Message(role=role, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=_TOKENS)
