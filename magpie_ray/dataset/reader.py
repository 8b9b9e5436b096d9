"""The rows of a build for readers: a few at a time, in row order, all or those that meet conditions.

Invariant: reads files that are named as partitions, one at a time. `magpie-ray verify` reports other files.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.config.source import read_overrides
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import ConfigError, CorruptBuildError
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
class Condition:
    """COLUMN=VALUE of --where. value: as YAML reads it. text: the value as it was typed."""

    column: str
    value: object
    text: str

    def holds(self, fields: Mapping[str, object]) -> bool:
        """Whether the row or reject has the value, or has it in its list."""
        cell = fields[self.column]
        return any(map(self._equals, cell)) if isinstance(cell, list) else self._equals(cell)

    def _equals(self, cell: object) -> bool:
        if isinstance(cell, str):
            return cell in (self.value, self.text)
        # 1 == True in Python, but not in a table.
        return cell == self.value and isinstance(cell, bool) == isinstance(self.value, bool)


def parse_conditions(texts: Iterable[str], columns: Sequence[str]) -> list[Condition]:
    """The conditions in texts of the form COLUMN=VALUE. ConfigError for another form or an unknown column."""
    conditions = []
    for text in texts:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator:
            raise ConfigError(f"--where: got {text!r}, must be COLUMN=VALUE, such as finish_reasons=length")
        if name not in columns:
            raise ConfigError(f"--where: there is no column {name!r}; there are {', '.join(columns)}")
        parsed = read_overrides([f"{name}={value}"])[name]
        conditions.append(Condition(column=name, value=parsed, text=value))
    return conditions


def select_rows(
    storage: Storage, conditions: Sequence[Condition], *, limit: int | None, row: int | None = None
) -> Iterator[Record]:
    """The first `limit` committed rows that meet all conditions, in order. Holds one partition in memory.

    row: the id to begin at; with no limit, that row alone, or none.
    """
    rows = read_rows(storage, first_row=row or 0)
    if limit is None:
        rows = (record for record in islice(rows, 1) if record["row_id"] == (row or 0))
    return islice((record for record in rows if all(c.holds(record) for c in conditions)), limit)
