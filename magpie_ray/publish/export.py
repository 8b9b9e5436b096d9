"""Rows in the formats that training programs read: JSON lines or Parquet, one conversation each.

    messages  {"row_id", "messages": [{"role", "content"}, ...]}, answers with "reasoning_content" if any
    sharegpt  {"id", "conversations": [{"from": "human" | "gpt" | "system", "value"}, ...]}
    alpaca    {"instruction", "input": "", "output"}, and "system"; for single-turn builds

Invariants: one partition is in memory at a time. The destination appears when it is complete, or not at all.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import IO

import pyarrow as pa

from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.reader import Record, messages_of, read_rows, said_in
from magpie_ray.errors import ConfigError, StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import ExportFormat

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
STDOUT = "-"
_COMPRESSIONS = {"gz", "zst", "bz2", "lz4"}
# Kinds of files that JSON lines would be mistaken for.
_OTHER_KINDS = {"arrow", "avro", "csv", "feather", "orc", "tsv", "xls", "xlsx", "yaml", "yml", "zip"}
_ROWS_PER_GROUP = 10_000
# Columns with one entry for each of several answers.
_OF_EACH = ("reasoning", "finish_reasons", "completion_tokens")
log = logging.getLogger(__name__)


def export(
    storage: Storage,
    to: ExportFormat,
    destination: str,
    *,
    system_prompts: bool = False,
    force: bool = False,
) -> int:
    """Write all committed rows of a build to a file, and return the number of lines.

    Of a pass with several answers a row, each answer is a line; rows and answers that are lacking are left
    out.

    destination: a path or an fsspec URL. A name that ends with .parquet is written as Parquet, all others as
    JSON lines, whose extension (.gz, .zst, .bz2 or .lz4) sets the compression. "-" is standard output, in
    JSON lines. system_prompts: write each row's system prompt. force: overwrite an existing file.

    Raises ConfigError when the rows of the build don't fit the format, the name promises another kind of file
    or the file exists; PreflightError when there is no build; StorageError.
    """
    is_parquet = _is_parquet(destination)
    columns = require_build(storage).columns
    if to == "alpaca" and not {"response", "responses"} & set(columns):
        raise ConfigError(
            "--to alpaca: holds one instruction and one answer a row, unlike the rows of this build: "
            "use --to messages or --to sharegpt"
        )
    lines = (FORMATS[to](row, system_prompts) for row in answered_rows(read_rows(storage)))
    with _opened(destination, force=force) as file:
        if is_parquet:
            return _write_parquet(file, lines, parquet_schema(to, columns, system_prompts))
        rows = 0
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
            rows += 1
    return rows


def answered_rows(rows: Iterable[Record]) -> Iterator[Record]:
    """Rows with one answer each: a row with several comes once for each; lacking ones are left out."""
    left_out = 0
    for row in rows:
        answers = row.get("responses")
        if not isinstance(answers, list):
            if row["finish_reasons"]:
                yield row
            else:
                left_out += 1
            continue
        for number, answer in enumerate(answers):
            if answer is None:
                left_out += 1
                continue
            conversation = [*_list(row["conversation"]), {"role": "assistant", "content": answer}]
            own = {name: [_list(row[name])[number]] for name in _OF_EACH if name in row}
            yield {**row, **own, "conversation": conversation, "response": answer, "responses": None}
    if left_out:
        log.info("%d answers that rows lack are left out", left_out)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _is_parquet(destination: str) -> bool:
    """Whether the name is a Parquet file's. ConfigError for the name of another kind of file."""
    name = destination.rpartition("/")[2].lower()
    stem, dot, compression = name.rpartition(".")
    inner = stem if dot and compression in _COMPRESSIONS else name
    kind = inner.rpartition(".")[2] if "." in inner else ""
    if kind in _OTHER_KINDS or (kind == "parquet" and inner != name):
        raise ConfigError(
            f"{destination}: is the name of a .{name.partition('.')[2]} file, which export does not write: "
            "name a .jsonl (also .jsonl.gz, .jsonl.zst) or a .parquet"
        )
    return kind == "parquet"


def _write_parquet(file: IO[bytes], lines: Iterator[dict[str, object]], schema: pa.Schema) -> int:
    import pyarrow.parquet as pq

    rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(lines, _ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            rows += len(batch)
    return rows


def parquet_schema(to: ExportFormat, columns: Collection[str], system_prompts: bool) -> pa.Schema:
    """The columns of a Parquet file: decided by the format and the build, never by the rows."""
    text = pa.string()
    if to == "alpaca":
        names = ["instruction", "input", "output", *(["system"] if system_prompts else [])]
        return pa.schema([(name, text) for name in names])
    if to == "sharegpt":
        turn = pa.struct([("from", text), ("value", text)])
        return pa.schema([("id", text), ("conversations", pa.list_(turn))])
    parts = ["role", "content", *(["reasoning_content"] if "reasoning" in columns else [])]
    message = pa.struct([(name, text) for name in parts])
    return pa.schema([("row_id", pa.int64()), ("messages", pa.list_(message))])


def _messages(row: Record, system_prompts: bool) -> dict[str, object]:
    messages = [{"role": role, "content": text} for role, text in _dialogue(row, system_prompts)]
    # A system message in front may be there or not.
    for message, said in zip(reversed(messages), reversed(said_in(row)), strict=False):
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
    return {"row_id": row["row_id"], "messages": messages}


def _sharegpt(row: Record, system_prompts: bool) -> dict[str, object]:
    turns = [{"from": _SPEAKERS[role], "value": text} for role, text in _dialogue(row, system_prompts)]
    return {"id": str(row["row_id"]), "conversations": turns}


def _alpaca(row: Record, system_prompts: bool) -> dict[str, object]:
    fields: dict[str, object] = {"instruction": row["instruction"], "input": "", "output": row["response"]}
    if system_prompts and row["system_prompt"]:
        fields["system"] = row["system_prompt"]
    return fields


def _dialogue(row: Record, system_prompts: bool) -> list[tuple[str, str]]:
    """(role, text) of each message. The system prompt comes first if it is wanted, whether or not stored."""
    messages = [(role, text) for role, text in messages_of(row) if role != "system"]
    prompt = row["system_prompt"]
    return [("system", str(prompt)), *messages] if system_prompts and prompt else messages


# A row and whether to write its system prompt -> the fields of its line.
FORMATS: Mapping[ExportFormat, Callable[[Record, bool], dict[str, object]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}


@contextmanager
def _opened(destination: str, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write to. The destination appears only after the last byte is written."""
    if destination == STDOUT:
        yield sys.stdout.buffer
        return
    import fsspec  # slow to import

    try:
        fs, path = fsspec.core.url_to_fs(destination)
        is_directory, exists = fs.isdir(path), not force and fs.exists(path)
    except (ValueError, ImportError, OSError) as exc:
        raise StorageError(f"{destination}: can't be written to: {exc}") from exc
    if is_directory:
        raise ConfigError(f"{destination}: is a directory; give the file to write, such as rows.jsonl")
    if exists:
        raise ConfigError(f"{destination}: exists already; --force overwrites it")
    is_local = isinstance(fs, fsspec.implementations.local.LocalFileSystem)
    if is_local and os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(
            f"{destination}: is a device or a pipe, which can't be replaced; - is standard output"
        )
    # A local file is written beside its destination and renamed; for a store, here, and uploaded whole.
    folder = os.path.dirname(path) or "." if is_local else None
    try:
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".magpie-ray-export-", dir=folder) as temporary:
            written = os.path.join(temporary, os.path.basename(path))
            with pa.output_stream(written) as file:  # compresses by the extension
                yield file
            if is_local:
                os.replace(written, path)
            else:
                fs.put_file(written, path)
    except OSError as exc:
        raise StorageError(f"{destination}: can't be written to: {exc}") from exc
