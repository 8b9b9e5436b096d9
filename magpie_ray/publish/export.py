"""Rows in the formats that training programs read: JSON lines, one conversation each.

    messages  {"row_id", "messages": [{"role", "content"}, ...]}, of an answer "reasoning_content" too
    sharegpt  {"id", "conversations": [{"from": "human" | "gpt" | "system", "value"}, ...]}
    alpaca    {"instruction", "input": "", "output"}, and "system"; of builds of one turn

What always holds: one partition is in memory at a time; the file is there whole or not at all.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Literal

import pyarrow as pa

from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.reader import Record, read_rows
from magpie_ray.errors import ConfigError, StorageError
from magpie_ray.storage.storage import Storage

ExportFormat = Literal["messages", "sharegpt", "alpaca"]

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
STDOUT = "-"


def export(
    storage: Storage,
    to: ExportFormat,
    destination: str,
    *,
    system_prompts: bool = False,
    force: bool = False,
) -> int:
    """Write all committed rows of a build to a file; returns how many.

    destination: a path or an fsspec URL, compressed where it ends in .gz, .zst or .bz2; "-" is standard
    output.
    system_prompts: write those that rows were generated under. force: over a file that is there.

    Raises ConfigError for a format that the build's rows can't take, or a file that is there; PreflightError
    when there is no build; StorageError.
    """
    columns = require_build(storage).columns
    if to == "alpaca" and "response" not in columns:
        raise ConfigError(
            "--to alpaca: has one instruction and one answer, which the rows of this build have not: "
            "use --to messages or --to sharegpt"
        )
    line = _FORMATS[to]
    rows = 0
    with _opened(destination, force=force) as file:
        for row in read_rows(storage):
            file.write(json.dumps(line(row, system_prompts), ensure_ascii=False).encode() + b"\n")
            rows += 1
    return rows


def _messages(row: Record, system_prompts: bool) -> dict[str, object]:
    messages = [{"role": role, "content": content} for role, content in _dialogue(row, system_prompts)]
    answers = (message for message in messages if message["role"] == "assistant")
    for message, reasoning in zip(answers, row.get("reasoning") or (), strict=False):  # type: ignore[call-overload]
        if reasoning:
            message["reasoning_content"] = reasoning
    return {"row_id": row["row_id"], "messages": messages}


def _sharegpt(row: Record, system_prompts: bool) -> dict[str, object]:
    said = [{"from": _SPEAKERS[role], "value": text} for role, text in _dialogue(row, system_prompts)]
    return {"id": str(row["row_id"]), "conversations": said}


def _alpaca(row: Record, system_prompts: bool) -> dict[str, object]:
    fields: dict[str, object] = {"instruction": row["instruction"], "input": "", "output": row["response"]}
    if system_prompts and row["system_prompt"]:
        fields["system"] = row["system_prompt"]
    return fields


_FORMATS: dict[str, Callable[[Record, bool], dict[str, object]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}


def _dialogue(row: Record, system_prompts: bool) -> Iterator[tuple[str, str]]:
    """(role, text) of a row; the system prompt first where it is wanted."""
    if system_prompts and row["system_prompt"]:
        yield "system", str(row["system_prompt"])
    conversation = row.get("conversation")
    if not isinstance(conversation, list):
        yield "user", str(row["instruction"])
        return
    for message in conversation:
        if message["role"] != "system":
            yield message["role"], message["content"]


@contextmanager
def _opened(destination: str, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name when all is written."""
    if destination == STDOUT:
        yield sys.stdout.buffer
        return
    import fsspec  # takes time to import

    try:
        fs, path = fsspec.core.url_to_fs(destination)
        if fs.isdir(path):
            raise ConfigError(f"{destination}: is a directory; give the file to write, such as rows.jsonl")
        if not force and fs.exists(path):
            raise ConfigError(f"{destination}: is there already; --force writes over it")
    except (ValueError, ImportError, OSError) as exc:
        if isinstance(exc, ConfigError):
            raise
        raise StorageError(f"{destination}: can't be written to: {exc}") from exc
    is_local = isinstance(fs, fsspec.implementations.local.LocalFileSystem)
    # On a disk beside its place, so that it can be renamed; for a store on this machine, and uploaded whole.
    folder = os.path.dirname(path) or "." if is_local else None
    if folder is not None:
        os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".magpie-ray-export-", dir=folder) as temporary:
        written = os.path.join(temporary, "rows")
        with pa.OSFile(written, "wb") as raw, _compressed(raw, path) as file:
            yield file
        try:
            if is_local:
                os.replace(written, path)
            else:
                fs.put_file(written, path)
        except OSError as exc:
            raise StorageError(f"{destination}: can't be written to: {exc}") from exc


@contextmanager
def _compressed(raw: Any, path: str) -> Iterator[Any]:
    compression = _COMPRESSIONS.get(os.path.splitext(path)[1])
    if compression is None:
        yield raw
    else:
        with pa.CompressedOutputStream(raw, compression) as stream:
            yield stream
