"""Rows in the formats that training programs read: JSON lines or Parquet, one conversation each.

    messages  {"row_id", "messages": [{"role", "content"}, ...]}, answers with "reasoning_content" if any
    sharegpt  {"id", "conversations": [{"from": "human" | "gpt" | "system", "value"}, ...]}
    alpaca    {"instruction", "input": "", "output"}, and "system"; for single-turn builds

Invariant: one partition is in memory at a time.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import pyarrow as pa

from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.reader import Record, messages_of, read_rows, said_in
from magpie_ray.errors import ConfigError
from magpie_ray.publish.export_file import open_export
from magpie_ray.storage.storage import Storage
from magpie_ray.types import RowFormat

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt"}
# Columns with one entry for each of several answers.
_OF_EACH = ("reasoning", "finish_reasons", "completion_tokens")
log = logging.getLogger(__name__)


def export(
    storage: Storage,
    to: RowFormat,
    destination: str,
    *,
    rows: Iterable[Record] | None = None,
    system_prompts: bool = False,
    force: bool = False,
) -> int:
    """Write rows of a data set to a file and return the number of lines.

    Of a pass with several answers a row, each answer is a line; rows and answers that are lacking are left
    out.

    rows: of the data set; None for all that are committed. destination, force: as for open_export.
    system_prompts: write each row's system prompt.

    Raises ConfigError when the rows don't fit the format, the name promises another kind of file or the file
    exists; PreflightError when there is no build; StorageError.
    """
    columns = require_build(storage).columns
    if to == "alpaca" and not ("instruction" in columns and {"response", "responses"} & set(columns)):
        raise ConfigError(
            "--to alpaca: holds one instruction and one answer a row, unlike the rows of this build: "
            "use --to messages or --to sharegpt"
        )
    if not {"conversation", "instruction"} & set(columns):
        raise ConfigError(
            f"--to {to}: {storage.url} has neither conversation nor instruction, but "
            f"{', '.join(columns)}: join it with its source by `magpie-ray select`"
        )
    written = 0
    with open_export(destination, parquet_schema(to, columns, system_prompts), force=force) as file:
        for row in answered_rows(read_rows(storage) if rows is None else rows):
            file.write(FORMATS[to](row, system_prompts))
            written += 1
    return written


def answered_rows(rows: Iterable[Record]) -> Iterator[Record]:
    """Rows with one answer each: a row with several comes once for each.

    Answers that a row lacks, and rows without a message of the user, are left out and counted in the log.
    """
    left_out = silent = 0
    for row in rows:
        answers = row.get("responses")
        if all(role != "user" for role, _ in messages_of(row)):
            silent += 1
            continue
        if not isinstance(answers, list):
            if row.get("finish_reasons", True):
                yield row
            else:
                left_out += 1
            continue
        for number, answer in enumerate(answers):
            if answer is None:
                left_out += 1
                continue
            asked = [{"role": role, "content": text} for role, text in messages_of({**row, "response": None})]
            conversation = [*asked, {"role": "assistant", "content": answer}]
            own = {name: _list(row[name])[number : number + 1] for name in _OF_EACH if name in row}
            yield {**row, **own, "conversation": conversation, "response": answer, "responses": None}
    if left_out:
        log.warning("%d answers that rows lack are left out", left_out)
    if silent:
        log.warning("%d rows without a message of the user are left out", silent)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def parquet_schema(to: RowFormat, columns: Collection[str], system_prompts: bool) -> pa.Schema:
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
    if system_prompts and row.get("system_prompt"):
        fields["system"] = row["system_prompt"]
    return fields


def _dialogue(row: Record, system_prompts: bool) -> list[tuple[str, str]]:
    """(role, text) of each message. The system prompt comes first if it is wanted, whether or not stored."""
    messages = [(role, text) for role, text in messages_of(row) if role != "system"]
    prompt = row.get("system_prompt")
    return [("system", str(prompt)), *messages] if system_prompts and prompt else messages


# A row and whether to write its system prompt -> the fields of its line.
FORMATS: Mapping[RowFormat, Callable[[Record, bool], dict[str, object]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
}
