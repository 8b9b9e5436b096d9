"""The cost of writing: rows to one Parquet object, on a local disk and on an S3 server over HTTP.

Also the cost of decoding a message. Like writing, decoding happens beside the engine's loop.
"""

import io
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.benchmarks.result import Cell, Claim, Result, Table
from jobs.benchmarks.s3_server import running_s3_server
from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.counters import Tally
from magpie_ray.dataset.columns import to_table
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Message, PartitionRecord, Role, Row
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import WorkerSpec

# The assumed speed of one actor, against which writing is measured.
TOKENS_PER_SECOND = 5000
# A partition: one actor's rows of five minutes.
ROWS = {1: 3500, 3: 1200}
_REPEATS = 5
_DECODED = 256
# English in the tokens of a large vocabulary.
_CHARACTERS_PER_TOKEN = 4.4
_SHORTEST_TEXT = 100


def run() -> Result:
    """Under a minute."""
    tables: list[Table] = []
    claims: list[Claim] = []
    text = Text(seed=0)
    for turns, num_rows in ROWS.items():
        rows = make_rows(text, num_rows, turns=turns)
        title = f"{turns} turn{'s' * (turns > 1)}, partitions of {num_rows:,} rows"
        costs = _measure_writing(rows, turns=turns)
        tables.append(Table(title=f"writing, {title}", rows=[cost.figures(rows) for cost in costs]))
        tables.append(Table(title=f"bytes, {title}", rows=sizes_of(rows, turns=turns)))
        claims.append(
            Claim(
                what=f"cores that writing to S3 takes at {TOKENS_PER_SECOND:,} tokens/s, n_turns {turns}",
                value=costs[-1].cores(rows),
                must_be="at most",
                bound=0.03,
            )
        )
    tables.append(_measure_decoding(text))
    return Result(name="storage", tables=tables, claims=claims, notes=_notes(text))


class Text:
    """English text from Python's own modules and its manual, 2 MB, cut into messages one after the other.

    The text starts again at its end, at a distance that no compression window covers.
    """

    def __init__(self, *, seed: int) -> None:
        self._random = random.Random(seed)
        self.source, self._position = _documentation(), 0

    def message(self, tokens: int) -> str:
        """The next message of about `tokens` tokens."""
        end = self._position + round(tokens * _CHARACTERS_PER_TOKEN)
        message = self.source[self._position : end]
        self._position = end if end < len(self.source) else 0
        return message.strip() or "."

    def length(self, role: Role) -> int:
        """Tokens of a message: magpie-lengths, a turn like those of the paper's Table 4 (426+-217)."""
        if role == "user":
            return round(min(max(self._random.lognormvariate(0.0, 0.6) * 30, 4), 256))
        return round(min(max(self._random.normalvariate(400, 210), 16), 1024))


def _documentation() -> str:
    texts = list(topics.values())
    for file in sorted(Path(os.__file__).parent.rglob("*.py")):
        if not {"site-packages", "test", "tests", "idlelib"} & set(file.parts):
            quoted = file.read_text(encoding="utf-8", errors="ignore").split('"""')[1::2]
            texts += [text for text in quoted if len(text) > _SHORTEST_TEXT]
    return re.sub(r"\n +", "\n", "\n".join(texts))


def make_rows(text: Text, num_rows: int, *, turns: int) -> list[Row]:
    """Rows 0..num_rows-1, as rounds return them."""
    return [_row(text, row_id, turns) for row_id in range(num_rows)]


def _row(text: Text, row_id: int, turns: int) -> Row:
    messages, prompt = list[Message](), 5
    for index in range(2 * turns):
        role: Role = "assistant" if index % 2 else "user"
        tokens = text.length(role)
        cut = tokens == 1024
        messages.append(
            Message(
                role=role,
                text=text.message(tokens),
                finish_reason="length" if cut else "stop",
                prompt_tokens=prompt,
                completion_tokens=tokens,
            )
        )
        prompt += tokens + 5
    # As where a few in a hundred messages are rejected.
    attempt = 2 if text.length("user") > 90 else 1
    return Row(row_id=row_id, messages=tuple(messages), system_prompt=None, attempt=attempt)


def make_config(output: str, *, turns: int) -> Config:
    """The config of a build with the bundled model."""
    return load_config(None, ["num_rows=1", f"n_turns={turns}", f"output.path={output}"])


def as_parquet(rows: Sequence[Row], *, turns: int) -> tuple[bytes, PartitionRecord]:
    """The file that a worker writes of the rows, and its record."""
    return to_parquet(
        to_table(rows, make_config("memory://x", turns=turns)),
        compression="zstd",
        fingerprint="0" * 64,
        run=1,
        tally=Tally.sum(Tally.of_row(row) for row in rows),
    )


def tokens_of(rows: Sequence[Row]) -> int:
    """Generated tokens of all rows."""
    return sum(message.completion_tokens for row in rows for message in row.messages)


# ---- writing


@dataclass(frozen=True, kw_only=True, slots=True)
class _Cost:
    """Medians for one partition. cpu_seconds: of all threads of this process."""

    step: str
    seconds: float
    cpu_seconds: float
    megabytes: float

    def cores(self, rows: Sequence[Row]) -> float:
        """The cores that the step keeps busy beside an engine of TOKENS_PER_SECOND."""
        return self.cpu_seconds / tokens_of(rows) * TOKENS_PER_SECOND

    def figures(self, rows: Sequence[Row]) -> dict[str, Cell]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "rows_per_s": len(rows) / self.seconds,
            "MB_per_s": self.megabytes / self.seconds,
            "cpu_us_per_row": 1e6 * self.cpu_seconds / len(rows),
            f"cores_at_{TOKENS_PER_SECOND}_tokens_per_s": self.cores(rows),
        }


def _measure_writing(rows: Sequence[Row], *, turns: int) -> list[_Cost]:
    """Building the file alone, then building and storing it; the last is on S3."""
    data, _ = as_parquet(rows, turns=turns)
    names = iter(range(1000))

    def write_to(storage: Storage) -> Callable[[], None]:
        return lambda: storage.create(f"data/{next(names)}.parquet", as_parquet(rows, turns=turns)[0])

    with tempfile.TemporaryDirectory() as folder, running_s3_server() as s3:
        actions = {
            "Parquet in memory": lambda: as_parquet(rows, turns=turns),
            "Parquet to a local disk": write_to(Storage(folder)),
            "Parquet to S3": write_to(Storage(f"s3://{s3.bucket}/x", s3.storage_options)),
        }
        return [_cost(step, action, len(data) / 1e6) for step, action in actions.items()]


def _cost(step: str, action: Callable[[], object], megabytes: float) -> _Cost:
    action()  # whatever is imported or opened the first time
    spent = []
    for _ in range(_REPEATS):
        started, cpu_started = time.perf_counter(), time.process_time()
        action()
        spent.append((time.perf_counter() - started, time.process_time() - cpu_started))
    seconds, cpu_seconds = (sorted(column)[_REPEATS // 2] for column in zip(*spent, strict=True))
    return _Cost(step=step, seconds=seconds, cpu_seconds=cpu_seconds, megabytes=megabytes)


# ---- bytes


def sizes_of(rows: Sequence[Row], *, turns: int) -> list[dict[str, Cell]]:
    """The size of the same rows in several formats."""
    ours = pq.read_table(pa.BufferReader(as_parquet(rows, turns=turns)[0]))
    jsonl = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ours.to_pylist()).encode()
    text = sum(len(message.text.encode()) for row in rows for message in row.messages)
    peer = pa.Table.from_pylist([_distilabel_row(row) for row in rows])
    sizes = {
        "the messages' text alone": text,
        "ours": len(as_parquet(rows, turns=turns)[0]),
        "ours as JSONL": len(jsonl),
        "ours as JSONL in zstd": len(pa.compress(jsonl, codec="zstd", asbytes=True)),
        "distilabel's columns, its Parquet (snappy)": _parquet_size(peer, "snappy"),
        "distilabel's columns, zstd": _parquet_size(peer, "zstd"),
    }
    mine = sizes["ours"]
    return [
        {"format": name, "bytes_per_row": size / len(rows), "times_ours": size / mine}
        for name, size in sizes.items()
    ]


def _distilabel_row(row: Row) -> Mapping[str, Any]:
    """The columns of distilabel's MagpieGenerator (steps/tasks/magpie/base.py)."""
    if len(row.messages) == 2:
        texts: dict[str, Any] = {"instruction": row.messages[0].text, "response": row.messages[1].text}
    else:
        texts = {"conversation": [{"role": m.role, "content": m.text} for m in row.messages]}
    statistics = {
        "input_tokens": [m.prompt_tokens for m in row.messages],
        "output_tokens": [m.completion_tokens for m in row.messages],
    }
    metadata = {"statistics_magpie_generator_0": statistics}
    return texts | {"model_name": "builtin:tiny-chat", "distilabel_metadata": metadata}


def _parquet_size(table: pa.Table, compression: str) -> int:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=compression)
    return len(sink.getvalue())


# ---- decoding


def _measure_decoding(text: Text) -> Table:
    """The cost of decoding a message."""
    build_spec = resolve_build(make_config("memory://x", turns=1))
    recipe = make_recipe(
        WorkerSpec(
            build_spec=build_spec,
            storage=Storage("memory://x"),
            fingerprint="0" * 64,
            run=1,
            device="cpu",
        )
    )
    draw = random.Random(0)
    ordinary = sorted(set(range(1, 1900)) - set(build_spec.form.special_token_ids))
    messages = [draw.choices(ordinary, k=text.length("assistant")) for _ in range(_DECODED)]
    seconds = _cost("", lambda: recipe.decode(messages), 0.0).cpu_seconds
    tokens = sum(map(len, messages))
    row: Mapping[str, Cell] = {
        "step": "decoding, in batches",
        "cpu_us_per_message": 1e6 * seconds / _DECODED,
        f"cores_at_{TOKENS_PER_SECOND}_tokens_per_s": seconds / tokens * TOKENS_PER_SECOND,
    }
    return Table(title=f"decoding, assistant messages of {tokens / _DECODED:.0f} tokens", rows=[row])


def _notes(text: Text) -> list[str]:
    return [
        f"texts: docstrings and manual of Python itself ({len(text.source) / 1e6:.1f} MB), cut at "
        f"magpie-lengths, {_CHARACTERS_PER_TOKEN} characters a token",
        "CPU is this process's, all threads; the S3 server is another process, and its seconds are not S3's",
        "a partition is one PUT: nothing is listed or looked up before or after it",
        "with one turn the schema holds every text twice (conversation, and instruction and response)",
    ]
