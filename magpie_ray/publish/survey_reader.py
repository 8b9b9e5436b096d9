"""The survey of a build, read from its files: all of a small build, an even sample of a large one.

What always holds: how much is read and held is bounded, however large the build; files are read whole, a few
at a time, and of them only the columns that are surveyed are decoded.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.dataset.reader import Record
from magpie_ray.errors import CorruptBuildError
from magpie_ray.publish import survey
from magpie_ray.publish.survey import Survey
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

T = TypeVar("T")

# A sample of this size tells shares to a fifth of a percent; it takes seconds and some tens of megabytes.
MAX_ROWS = 300_000
MAX_BYTES = 256 << 20
_BATCH_ROWS = 8192
# Files in flight: their bytes, and those of one batch of each, are held.
_READERS = 4


def take_survey(
    storage: Storage, records: Sequence[PartitionRecord], *, samples: int, seconds: float = math.inf
) -> Survey:
    """Survey the partitions, or evenly spread ones of them, and keep so many evenly spread rows.

    After so many seconds no further file is begun; those read by then are evenly spread, too.
    CorruptBuildError names a file that can't be read.
    """
    chosen = choose(records, max_rows=MAX_ROWS, max_bytes=MAX_BYTES)
    wanted = spread_rows(chosen, samples)
    largest = max((record.size for record in chosen), default=1)
    readers = max(1, min(_READERS, MAX_BYTES // largest))
    deadline = time.monotonic() + seconds

    def look(record: PartitionRecord) -> Survey:
        return Survey() if time.monotonic() > deadline else _survey_file(storage, record, wanted)

    with ThreadPoolExecutor(readers) as pool:
        return Survey.sum(pool.map(look, spread_order(chosen)))


def choose(records: Sequence[PartitionRecord], *, max_rows: int, max_bytes: int) -> Sequence[PartitionRecord]:
    """All partitions if they stay within the bounds, else evenly spread ones that do; at least one."""
    rows, size = sum(record.rows for record in records), sum(record.size for record in records)
    part = min(1.0, max_rows / max(1, rows), max_bytes / max(1, size))
    if part == 1.0:
        return records
    number = max(1, int(len(records) * part))
    evenly = [records[(2 * i + 1) * len(records) // (2 * number)] for i in range(number)]
    chosen, left_rows, left_bytes = list[PartitionRecord](), max_rows, max_bytes
    for record in evenly:
        if chosen and (record.rows > left_rows or record.size > left_bytes):
            continue
        chosen.append(record)
        left_rows, left_bytes = left_rows - record.rows, left_bytes - record.size
    return chosen


def spread_order(records: Sequence[T]) -> list[T]:
    """Another order, in which the first few of any number are about evenly spread."""
    golden = (math.sqrt(5) - 1) / 2
    return [records[place] for place in sorted(range(len(records)), key=lambda n: (n + 1) * golden % 1)]


def spread_rows(records: Sequence[PartitionRecord], number: int) -> frozenset[int]:
    """Ids of so many rows, or of all, evenly spread over the partitions."""
    rows = sum(record.rows for record in records)
    number = min(number, rows)
    places = iter([(2 * i + 1) * rows // (2 * number) for i in range(number)])
    found, before, place = list[int](), 0, next(places, None)
    for record in records:
        while place is not None and place < before + record.rows:
            found.append(record.start + place - before)
            place = next(places, None)
        before += record.rows
    return frozenset(found)


def most_repeated(
    storage: Storage, records: Sequence[PartitionRecord], found: Survey, number: int
) -> Mapping[str, int]:
    """The instructions that occur most often, with how often; only those that occur more than once."""
    top = sorted(found.repeats.items(), key=lambda item: (-item[1], found.first_rows[item[0]]))[:number]
    times = {found.first_rows[digest]: n for digest, n in top}
    holders = [r for r in records if any(r.start <= row_id < r.stop for row_id in times)]
    rows: list[Record] = []
    for record in holders:
        for batch in _batches(storage, record):
            rows += Survey.of_batch(batch, samples=times).samples
    texts = {row["row_id"]: survey.instruction_of(row) for row in rows}
    return {texts[row_id]: n for row_id, n in times.items() if row_id in texts}


def _survey_file(storage: Storage, record: PartitionRecord, samples: frozenset[int]) -> Survey:
    return Survey.sum(Survey.of_batch(batch, samples=samples) for batch in _batches(storage, record))


def _batches(storage: Storage, record: PartitionRecord) -> Iterator[pa.RecordBatch]:
    key = record.partition.key
    try:
        with pq.ParquetFile(pa.BufferReader(storage.read(key))) as file:
            there = set(file.schema_arrow.names)
            skipped = "instruction" if "conversation" in there else "conversation"
            columns = [name for name in survey.COLUMNS if name in there and name != skipped]
            yield from file.iter_batches(_BATCH_ROWS, columns=columns)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(f"{key} can't be read ({exc}): see `magpie-ray verify`") from exc
