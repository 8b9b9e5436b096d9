"""The rows of a build for readers: a few at a time, in row order.

Invariant: reads files that are named as partitions, one at a time. `magpie-ray verify` reports other files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition

Record = dict[str, object]

_BATCH_ROWS = 1024


def read_rows(storage: Storage, *, first_row: int = 0) -> Iterator[Record]:
    """Committed rows from `first_row` on, as dicts by column. CorruptBuildError names a damaged file."""
    keys = [item.key for item in read_data_folder(storage).partitions]
    # The last file that starts at or before the row; a hole before it is skipped.
    first_key = Partition(start=first_row, stop=first_row + 1).key
    begin = max((index for index, key in enumerate(keys) if key <= first_key), default=0)
    for key in keys[begin:]:
        data = pa.BufferReader(storage.read(key))
        try:
            with pq.ParquetFile(data) as file:
                if "row_id" not in file.schema_arrow.names:
                    raise CorruptBuildError(f"{key} was not written by magpie-ray: see `magpie-ray verify`")
                # Without threads: some may still be starting when a command ends because its reader left.
                for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                    yield from (row for row in batch.to_pylist() if row["row_id"] >= first_row)
        except PARQUET_ERRORS as exc:
            raise CorruptBuildError(f"{key} can't be read ({exc}): see `magpie-ray verify`") from exc


def messages_of(row: Record) -> list[tuple[str, str]]:
    """(role, text) of a row's messages, whatever columns its data set has; none where it has no messages."""
    conversation = row.get("conversation")
    if isinstance(conversation, list):
        return [(message["role"], message["content"]) for message in conversation]
    columns = (("user", "instruction"), ("assistant", "response"))
    return [(role, str(row[name])) for role, name in columns if row.get(name) is not None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A message of a row. The last three are of generated messages; a given one has no tokens.

    text: None in the place of an answer that the row lacks.
    """

    role: str
    text: str | None
    reasoning: str = ""
    finish_reason: str | None = None
    tokens: int | None = None


def instruction_of(row: Record) -> str:
    """The user's first message; of a row of a pass, the one that is answered."""
    said = said_in(row)
    given = len(said) - sum(one.finish_reason is not None or one.text is None for one in said)
    answered = said[given - 1] if given and said[given - 1].role == "user" else None
    return str((answered or next(one for one in said if one.role == "user")).text)


def said_in(row: Record) -> list[Said]:
    """The messages of a row, with all of its answers, whatever job made it.

    A selection may lack columns: without finish_reasons every message counts as generated, and reasoning and
    tokens belong to the last ones.
    """
    messages: list[tuple[str, str | None]] = [*messages_of(row)]
    columns = [row.get(name) or [] for name in ("reasoning", "finish_reasons", "completion_tokens")]
    reasonings, endings, tokens = (column if isinstance(column, list) else [] for column in columns)
    if isinstance(answers := row.get("responses"), list):
        messages += [("assistant", text) for text in answers]
    given = max(0, len(messages) - len(endings))
    if row.get("finish_reasons") is None:
        given, endings = 0, [None] * len(messages)
        lacking = sum(role == "assistant" for role, _ in messages) - len(reasonings)
        reasonings = [""] * lacking + reasonings
        tokens = [None] * (len(messages) - len(tokens)) + tokens
    said, thoughts = list[Said](), iter(reasonings)
    for index, (role, text) in enumerate(messages):
        if index < given:
            said.append(Said(role=role, text=text))
            continue
        said.append(
            Said(
                role=role,
                text=text,
                reasoning=(next(thoughts, "") or "") if role == "assistant" else "",
                finish_reason=endings[index - given],
                tokens=tokens[index - given] if tokens else None,
            )
        )
    return said


def select_rows(storage: Storage, *, limit: int | None, row: int | None = None) -> Iterator[Record]:
    """The first `limit` committed rows, in order. Holds one partition in memory.

    row: the id to begin at; with no limit, that row alone, or none.
    """
    rows = read_rows(storage, first_row=row or 0)
    if limit is None:
        return (record for record in islice(rows, 1) if record["row_id"] == (row or 0))
    return islice(rows, limit)
