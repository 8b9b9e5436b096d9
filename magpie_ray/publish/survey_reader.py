"""Takes the survey of a build from its files: all files of a small build, an even sample of a large one.

Invariants: the bytes read and held are bounded, however large the build is. Files are read whole, a few at a
time; only the surveyed columns are decoded.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.config.scoring import ScoreKind
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.dataset.reader import instruction_of
from magpie_ray.errors import CorruptBuildError
from magpie_ray.publish.score_survey import columns_of_scores
from magpie_ray.publish.survey import COLUMNS, Survey, rows_with
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord
from magpie_ray.utils.background import DaemonExecutor

T = TypeVar("T")

# A sample of this size tells shares to a fifth of a percent; it takes seconds and some tens of megabytes.
_MAX_ROWS = 300_000
_MAX_BYTES = 256 << 20
_BATCH_ROWS = 8192
# Files read at the same time. The bytes of each are in memory, and one batch of its rows.
_READERS = 4


def take_survey(
    storage: Storage,
    records: Sequence[PartitionRecord],
    *,
    samples: int,
    answers: int = 0,
    scores: Mapping[str, ScoreKind] = MappingProxyType({}),
    seconds: float = math.inf,
    max_rows: int = _MAX_ROWS,
) -> Survey:
    """Survey the partitions, or evenly spread ones with at most `max_rows`, and keep `samples` spread rows.

    answers: BuildRecord.answers. scores: see surveyed_scores. seconds: after these no further file is read;
    the files read until then are evenly spread, too. CorruptBuildError names a file that can't be read.
    """
    chosen = choose(records, max_rows=max_rows, max_bytes=_MAX_BYTES)
    sample_ids = spread_rows(chosen, samples)
    largest = max((record.size for record in chosen), default=1)
    readers = max(1, min(_READERS, _MAX_BYTES // largest))
    deadline = time.monotonic() + seconds

    def survey_file(record: PartitionRecord) -> Survey:
        if time.monotonic() > deadline:
            return Survey()
        return Survey.sum(
            Survey.of_batch(batch, samples=sample_ids, answers=answers, scores=scores)
            for batch in _batches(storage, record, columns_of_scores(scores))
        )

    with DaemonExecutor(readers) as pool:
        return Survey.sum(pool.map(survey_file, spread_order(chosen)))


def choose(records: Sequence[PartitionRecord], *, max_rows: int, max_bytes: int) -> Sequence[PartitionRecord]:
    """All partitions if they stay within the bounds; otherwise evenly spread ones that do, at least one."""
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
    """The records in an order whose first few, however many, are about evenly spread."""
    golden = (math.sqrt(5) - 1) / 2  # its multiples modulo 1 are
    return [records[place] for place in sorted(range(len(records)), key=lambda n: (n + 1) * golden % 1)]


def spread_rows(records: Sequence[PartitionRecord], number: int) -> frozenset[int]:
    """The ids of `number` rows, or of all rows if there are fewer, evenly spread over the partitions."""
    rows = sum(record.rows for record in records)
    number = min(number, rows)
    places = iter([(2 * i + 1) * rows // (2 * number) for i in range(number)])
    ids, before, place = list[int](), 0, next(places, None)
    for record in records:
        while place is not None and place < before + record.rows:
            ids.append(record.start + place - before)
            place = next(places, None)
        before += record.rows
    return frozenset(ids)


def most_repeated(
    storage: Storage, records: Sequence[PartitionRecord], survey: Survey, number: int
) -> Mapping[str, int]:
    """The `number` instructions that most rows share, with the number of these rows, in that order."""
    top = sorted(survey.repeats.items(), key=lambda item: (-item[1], survey.first_rows[item[0]]))[:number]
    times = {survey.first_rows[digest]: n for digest, n in top}
    texts = dict[object, str]()
    for record in records:
        if any(record.start <= row_id < record.stop for row_id in times):
            for batch in _batches(storage, record):
                for row in rows_with(batch, times):
                    texts[row["row_id"]] = instruction_of(row)
    return {texts[row_id]: n for row_id, n in times.items()}


def _batches(
    storage: Storage, record: PartitionRecord, further: Sequence[str] = ()
) -> Iterator[pa.RecordBatch]:
    key = record.partition.key
    try:
        with pq.ParquetFile(pa.BufferReader(storage.read(key))) as file:
            names = set(file.schema_arrow.names)
            names.discard("instruction" if "conversation" in names else "conversation")
            columns = [name for name in (*COLUMNS, *further) if name in names]
            yield from file.iter_batches(_BATCH_ROWS, columns=columns)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(f"{key} can't be read ({exc}): see `magpie-ray verify`") from exc
