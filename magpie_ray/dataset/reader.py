"""The readers' side: rows of a build, a few at a time, in row order.

What always holds: files named as partitions are read, one at a time; of others `magpie-ray verify` tells.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.config.source import read_source
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import ConfigError, CorruptBuildError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, Partition

Record = dict[str, object]

_BATCH_ROWS = 1024
_PARTITION_KEY = re.compile(re.escape(DATA_PREFIX) + r"part-\d{12}\.parquet")


def read_rows(storage: Storage, *, first_row: int = 0) -> Iterator[Record]:
    """Committed rows from `first_row` on, as dicts by column. CorruptBuildError names a damaged file."""
    keys = [item.key for item in storage.list_objects(DATA_PREFIX) if _PARTITION_KEY.fullmatch(item.key)]
    # The last file that starts at or before the row; a hole before it is skipped.
    named = Partition(start=first_row, stop=first_row + 1).key
    begin = max((index for index, key in enumerate(keys) if key <= named), default=0)
    for key in keys[begin:]:
        data = pa.BufferReader(storage.read(key))
        try:
            # In this thread: a command whose reader leaves ends while others may still be starting.
            with pq.ParquetFile(data) as file:
                if not {"row_id", "system_prompt"} <= set(file.schema_arrow.names):
                    raise CorruptBuildError(f"{key} was not written by magpie-ray: see `magpie-ray verify`")
                for batch in file.iter_batches(_BATCH_ROWS, use_threads=False):
                    yield from (row for row in batch.to_pylist() if row["row_id"] >= first_row)
        except PARQUET_ERRORS as exc:
            raise CorruptBuildError(f"{key} can't be read ({exc}): see `magpie-ray verify`") from exc


def messages_of(row: Record) -> list[tuple[str, str]]:
    """(role, text) of a row, whatever columns its build has."""
    conversation = row.get("conversation")
    if isinstance(conversation, list):
        return [(message["role"], message["content"]) for message in conversation]
    return [("user", str(row["instruction"]))]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One of them: the column, the value, and the value as it was typed."""

    column: str
    value: object
    text: str

    def holds(self, fields: Mapping[str, object]) -> bool:
        """Whether a row, or a reject, is as it says."""
        cell = fields[self.column]
        return any(map(self._equals, cell)) if isinstance(cell, list) else self._equals(cell)

    def _equals(self, cell: object) -> bool:
        if isinstance(cell, str):
            return cell in (self.value, self.text)
        # 1 == True in Python, but not in a table.
        return cell == self.value and isinstance(cell, bool) == isinstance(self.value, bool)


def parse_conditions(texts: Iterable[str], columns: Sequence[str]) -> tuple[Condition, ...]:
    """What --where was given. ConfigError for a column that is not there, or for what is no key=value."""
    return tuple(_parse(text, columns) for text in texts)


def _parse(text: str, columns: Sequence[str]) -> Condition:
    name, separator, typed = text.partition("=")
    name = name.strip()
    if not separator:
        raise ConfigError(f"--where: got {text!r}, must be COLUMN=VALUE, such as finish_reasons=length")
    if name not in columns:
        raise ConfigError(f"--where: there is no column {name!r}; there are {', '.join(columns)}")
    return Condition(column=name, value=read_source(None, [f"{name}={typed}"])[name], text=typed)


def select_rows(
    storage: Storage, conditions: Sequence[Condition], *, limit: int | None, row: int | None = None
) -> Iterator[Record]:
    """Committed rows for which all conditions hold, in order; one partition is in memory at a time.

    row: the first to be looked at. limit: so many; None with a `row`: that row or none.
    """
    first = row or 0
    rows: Iterator[Record] = read_rows(storage, first_row=first)
    if limit is None:
        rows = (found for found in islice(rows, 1) if found["row_id"] == first)
    return islice((found for found in rows if all(c.holds(found) for c in conditions)), limit)
