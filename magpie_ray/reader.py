"""The readers' side: rows of a build, a few at a time, in row order."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage import Storage
from magpie_ray.types import DATA_PREFIX

Record = dict[str, object]


def read_rows(storage: Storage, *, first_row: int = 0) -> Iterator[Record]:
    """Committed rows from `first_row` on, as dicts by column. Reads one file at a time."""
    objects = storage.list(DATA_PREFIX)
    starts = [item.key for item in objects]
    # The last file that starts at or before the row; a hole before it is skipped.
    named = f"{DATA_PREFIX}part-{first_row:012d}.parquet"
    begin = max((index for index, key in enumerate(starts) if key <= named), default=0)
    for item in objects[begin:]:
        try:
            table = pq.read_table(pa.BufferReader(storage.read(item.key)))
        except (pa.ArrowException, OSError) as exc:
            raise CorruptBuildError(f"{item.key} can't be read ({exc}): see `magpie-ray verify`") from exc
        for batch in table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                if row["row_id"] >= first_row:
                    yield row


def messages_of(row: Record) -> list[tuple[str, str]]:
    """(role, text) of a row, whatever columns its build has."""
    conversation = row.get("conversation")
    if isinstance(conversation, list):
        return [(message["role"], message["content"]) for message in conversation]
    return [("user", str(row["instruction"]))]
