"""The labelled messages, good ones and bad ones by reason, and how well the rules tell them apart.

    python -m tests.acceptance.labelled     prints the tables of docs/acceptance.md

Written ones lie in good/ and bad/, by the rule that should reject them. Generated ones lie in
smollm2.jsonl, one conversation in a line. SmolLM2-135M-Instruct (Apache-2.0, tests/support/smollm2.py)
generated them on vLLM: at a temperature of 1.0 for users and of 0 or 0.7 for answers, with at most 256
tokens each. No rule chose among them. `label` names the rule that should reject a message: `truncated`
follows from the finish reason, all others from reading. `unclear` is a message over which readers would
differ. It does not count.

Invariants: half of the messages are held out, so that thresholds are not tuned on them. Of the written ones
it is every second one of a file, of the generated ones each conversation whose first message has an odd
SHA-256.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from magpie_ray.acceptance import Dialogue, RuleContext, Utterance
from magpie_ray.acceptance.catalogue import build_rules
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.types import Message, Role

FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """A message and the right reason to reject it, or None. language: the one that the build wants."""

    reason: str | None
    utterance: Utterance
    dialogue: Dialogue
    language: str | Sequence[str] | None = None
    held_out: bool


def load_written() -> list[Labelled]:
    """All that people wrote."""
    return [*_files("good"), *_files("bad")]


def load_generated() -> list[Labelled]:
    """All that a real model wrote and that has a clear label."""
    lines = (FOLDER / "smollm2.jsonl").read_text(encoding="utf-8").splitlines()
    return [message for line in lines for message in _conversation(json.loads(line))]


def _files(folder: str) -> Iterator[Labelled]:
    for file in sorted((FOLDER / folder).glob("*.yaml")):
        for index, entry in enumerate(yaml.safe_load(file.read_text(encoding="utf-8"))):
            reason = file.stem if folder == "bad" else None
            entry = {"user": entry} if isinstance(entry, str) else entry
            before = entry.get("before", ())
            yield _labelled(entry, before, reason=reason, held_out=index % 2 == 1)


def _conversation(entries: Sequence[Mapping[str, Any]]) -> Iterator[Labelled]:
    texts = [entry.get("user") or entry["assistant"] for entry in entries]
    held_out = hashlib.sha256(texts[0].encode()).digest()[0] % 2 == 1
    for index, entry in enumerate(entries):
        if entry.get("label") != "unclear":
            yield _labelled(entry, texts[:index], reason=entry.get("label"), held_out=held_out)


def _labelled(
    entry: Mapping[str, Any], before: Sequence[str], *, reason: str | None, held_out: bool
) -> Labelled:
    role: Role = "user" if "user" in entry else "assistant"
    loop = (entry.get("loop", "").replace("{n}", str(n + 1)) for n in range(entry.get("times", 0)))
    text = entry[role] + "".join(loop) + entry.get("end", "")
    utterance = Utterance(role=role, text=text, token_ids=(), finish_reason=entry.get("finish", "stop"))
    messages = tuple(_message("assistant" if i % 2 else "user", said) for i, said in enumerate(before))
    return Labelled(
        reason=reason,
        utterance=utterance,
        dialogue=Dialogue(messages=messages),
        language=entry.get("language"),
        held_out=held_out,
    )


def _message(role: Role, text: str) -> Message:
    return Message(role=role, text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1)


class RuleScores:
    """Which messages each rule rejects by itself. A language is wanted where a message names one."""

    def __init__(self, messages: Sequence[Labelled]) -> None:
        self.messages = messages
        usual = build_rules(AcceptanceConfig(), RuleContext(role_words=("assistant", "model")))
        self.rules = [*usual, "language"]
        self.rejected_by = [
            {
                name
                for name, rule in _with_language(usual, m.language).items()
                if rule(m.utterance, m.dialogue)
            }
            for m in messages
        ]

    def has(self, rule: str) -> bool:
        """Whether the rule exists for any of the messages."""
        return any(message.reason == rule for message in self.messages)

    def recall(self, rule: str | None = None, *, held_out: bool) -> tuple[int, int]:
        """Bad messages that the rule exists for (None: any rule, any message): rejected ones, and all."""
        return self._count(
            rule, held_out, [m.reason is not None and rule in (None, m.reason) for m in self.messages]
        )

    def false_rejects(self, rule: str | None = None, *, held_out: bool) -> tuple[int, int]:
        """Good messages that the rule rejects (None: any rule), and all that it was tried on."""
        tried = [m.reason is None and (rule != "language" or m.language is not None) for m in self.messages]
        return self._count(rule, held_out, tried)

    def _count(self, rule: str | None, held_out: bool, counted: Sequence[bool]) -> tuple[int, int]:
        rejected = [
            bool(names) if rule is None else rule in names
            for m, names, is_counted in zip(self.messages, self.rejected_by, counted, strict=True)
            if is_counted and m.held_out == held_out
        ]
        return sum(rejected), len(rejected)

    def table(self) -> str:
        """All figures as Markdown."""
        lines = [
            "| rule | found | found, held out | mistakes | mistakes, held out |",
            "|---|---|---|---|---|",
        ]
        for rule in (*filter(self.has, self.rules), None):
            counts = [
                "{} of {}".format(*count(rule, held_out=held_out))
                for count in (self.recall, self.false_rejects)
                for held_out in (False, True)
            ]
            lines.append(f"| {rule or 'any'} | {' | '.join(counts)} |")
        return "\n".join(lines)


def _with_language(rules: Mapping[str, Any], wanted: str | Sequence[str] | None) -> dict[str, Any]:
    if wanted is None:
        return dict(rules)
    return {**rules, "language": _language_rule(wanted if isinstance(wanted, str) else tuple(wanted))}


@cache
def _language_rule(wanted: str | tuple[str, ...]) -> Any:
    languages = wanted if isinstance(wanted, str) else [*wanted]
    config = AcceptanceConfig.model_validate({"rules": {"language": {"is": languages}}})
    return build_rules(config)["language"]


if __name__ == "__main__":
    for messages in (load_written(), load_generated()):
        print(RuleScores(messages).table(), end="\n\n")
