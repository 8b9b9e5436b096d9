"""Small builds for tests, made without a model: rows with known texts, written as the job writes them."""

import json
import uuid
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from magpie_ray.config.loading import parse_config
from magpie_ray.config.schema import Config
from magpie_ray.counters import Tally
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import columns_of, to_table
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Message, PartitionRecord, Rejection, Row, SystemPrompt

PROMPT = SystemPrompt(key=None, text="Be kind.", weight=1.0)


def memory_storage() -> Storage:
    return Storage(f"memory://{uuid.uuid4().hex}")


def config_of(**keys: Any) -> Config:
    return parse_config({"num_rows": 10} | keys)


def row_of(
    row_id: int,
    texts: Sequence[str] = ("Why?", "Because."),
    prompt: SystemPrompt | None = None,
    reasoning: str = "",
) -> Row:
    """A row of these messages, user first; message `i` took 10 + i prompt and 20 + i generated tokens."""
    messages = tuple(
        Message(
            role="assistant" if i % 2 else "user",
            text=text,
            finish_reason="stop",
            prompt_tokens=10 + i,
            completion_tokens=20 + i,
            reasoning=reasoning if i % 2 else "",
        )
        for i, text in enumerate(texts)
    )
    return Row(row_id=row_id, messages=messages, system_prompt=prompt, attempt=1)


def refused(row_id: int, attempt: int) -> Rejection:
    """An attempt whose first message, "No.", was taken for a refusal."""
    return Rejection(
        row_id=row_id,
        attempt=attempt,
        turn=1,
        role="user",
        reason="refusal",
        text="No.",
        user_tokens=2,
        assistant_tokens=0,
    )


def build_of(grid: int = 4, config: Config | None = None, **identity: object) -> BuildRecord:
    config = config or config_of()
    return BuildRecord(
        identity={"n_turns": 1, "sampling.user.temperature": 1.0} | identity,
        rows_per_partition=grid,
        chat_format={},
        columns=columns_of(config),
        compression="zstd",
        config=config.recorded(),
        versions={},
    )


def commit(
    storage: Storage,
    record: BuildRecord,
    start: int,
    stop: int,
    *,
    config: Config | None = None,
    texts: Sequence[str] = ("Why?", "Because."),
    reasoning: str = "",
) -> PartitionRecord:
    """One file with rows start..stop-1."""
    rows = [row_of(row_id, texts, reasoning=reasoning) for row_id in range(start, stop)]
    data, written = to_parquet(
        to_table(rows, config or config_of()),
        compression="zstd",
        fingerprint=record.fingerprint,
        run=1,
        tally=Tally.sum(Tally.of_row(row) for row in rows),
    )
    storage.create(written.partition.key, data)
    return written


def complete_build(
    storage: Storage,
    num_rows: int = 10,
    grid: int = 4,
    texts: Sequence[str] = ("Why?", "Because."),
    *,
    config: Config | None = None,
    reasoning: str = "",
) -> tuple[BuildRecord, list[PartitionRecord]]:
    """A finished build of `num_rows` rows in files of `grid`."""
    record = build_record.open_build(storage, build_of(grid, config, **(config.identity() if config else {})))
    run = run_records.start_run(storage, num_rows=num_rows, host="here", config={})
    records = [
        commit(storage, record, p.start, p.stop, config=config, texts=texts, reasoning=reasoning)
        for p in manifest.pending(num_rows, record, ())
    ]
    finish(storage, record, records, num_rows)
    run_records.end_run(storage, run, outcome="done")
    return record, records


def finish(storage: Storage, record: BuildRecord, records: Iterable[PartitionRecord], num_rows: int) -> None:
    manifest.write_manifest(storage, record, records, num_rows=num_rows)
    manifest.mark_complete(storage)


# As Gemma's: no system role.
GEMMA_LIKE = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)
DATED = (
    "{{ bos_token }}Today is {{ strftime_now('%Y-%m-%d') }}.{% for m in messages %}<|start_header_id|>"
    "{{ m.role }}<|end_header_id|>{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>{% endif %}"
)


def model_folder(folder: Path, template: str) -> str:
    """A folder with the bundled model's tokenizer and another chat template; it has no weights."""
    source = files("magpie_ray").joinpath("tiny_chat")
    folder.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes(source.joinpath(name).read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def tokenizer_folder(folder: Path, tokenizer: Any) -> str:
    """A folder of a model with this tokenizer; it has no weights."""
    tokenizer.save_pretrained(folder)
    stated = json.loads(files("magpie_ray").joinpath("tiny_chat", "config.json").read_text())
    stated |= {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps(stated))
    return str(folder)
