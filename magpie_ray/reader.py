"""The readers' side: rows of a build, a few at a time, in row order.

What always holds: files named as partitions are read, one at a time; of others `magpie-ray verify` tells.
"""

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage import Storage
from magpie_ray.types import DATA_PREFIX, Partition
from magpie_ray.writer import PARQUET_ERRORS

Record = dict[str, object]

_BATCH_ROWS = 1024
_PARTITION_KEY = re.compile(re.escape(DATA_PREFIX) + r"part-\d{12}\.parquet")


def read_rows(storage: Storage, *, first_row: int = 0) -> Iterator[Record]:
    """Committed rows from `first_row` on, as dicts by column. CorruptBuildError names a damaged file."""
    keys = [item.key for item in storage.list(DATA_PREFIX) if _PARTITION_KEY.fullmatch(item.key)]
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
