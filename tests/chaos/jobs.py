"""What a chaos build runs: the demo's `generate`, or a pass that answers a source which grows.

Each row of the source names a number, and the engines' answers begin with it (`numbered`), so that an answer
in the wrong row shows.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.ground import Ground
from tests.support.engines import numbered

ANSWERS = 5

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A command with its config. sized: num_rows says how many rows it makes, not a source.

    messages: that engines generate for a row; wasted: with each empty message, at most, itself included.
    columns, complaints: what is read of its rows, and what is wrong with them, beside their number.
    """

    command: tuple[str, ...]
    sized: bool
    messages: int
    wasted: int
    columns: tuple[str, ...] = ("row_id",)
    complaints: Callable[[Sequence[Row]], list[str]] = lambda _: []


GENERATE = Job(command=("generate", "jobs/configs/demo.yaml"), sized=True, messages=4, wasted=4)


class Source:
    """Files of instructions in the store, read through the proxy as all of a job's files are."""

    def __init__(self, ground: Ground, name: str) -> None:
        self._server, self._folder, self.rows = ground.server, f"{name}-source", 0
        self.url = f"s3://{ground.server.bucket}/{self._folder}"

    def grow(self, rows: int) -> None:
        """Another file, so that there are so many rows."""
        lines = (json.dumps({"instruction": f"Count from {n}."}) + "\n" for n in range(self.rows, rows))
        key = f"{self._folder}/rows-{self.rows:09}.jsonl"
        self._server.client().put_object(Bucket=self._server.bucket, Key=key, Body="".join(lines).encode())
        self.rows = rows


def answering(folder: Path, source: Source) -> Job:
    """The pass over all rows of the source, several answers each."""
    path = folder / "answers.yaml"
    path.write_text(
        f"source: {{path: '{source.url}'}}\n"
        f"n: {ANSWERS}\n"
        "model: {name: 'builtin:tiny-chat'}\n"
        "sampling: {assistant: {temperature: 0.8, max_tokens: 96}}\n"
        "engine: {device: cpu, max_model_len: 1024}\n"
    )
    return Job(
        command=("answer", str(path)),
        sized=False,
        messages=ANSWERS,
        wasted=1,
        columns=("row_id", "instruction", "responses"),
        complaints=_mixed,
    )


def _mixed(rows: Sequence[Row]) -> list[str]:
    """Rows that lack an answer, or have one of another row."""
    found = []
    for row in rows:
        number = int(row["row_id"])
        own = [answer for answer in row["responses"] if answer and numbered(answer) == number]
        if row["instruction"] != f"Count from {number}." or len(own) != ANSWERS:
            found.append(f"row {number}: {row['instruction']!r} is answered by {row['responses']}")
    return found
