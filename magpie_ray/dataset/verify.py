"""Whether a build is complete and consistent, read from storage alone.

Invariants: lists every problem; changes and deletes nothing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import schema_of
from magpie_ray.dataset.layout import MANIFEST_KEY, SUCCESS_KEY
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import CorruptBuildError, MagpieError
from magpie_ray.storage.storage import Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord

_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The partitions of a build, and every problem with them. num_rows: that the build is to have."""

    url: str
    num_rows: int
    records: tuple[PartitionRecord, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Complete and consistent."""
        return not self.problems


def verify(storage: Storage, *, quick: bool = False) -> Verification:
    """Check records, footers, row ranges and, unless `quick`, every page of every file."""
    record = build_record.require_build(storage)
    listed = storage.list_objects(DATA_PREFIX)
    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(lambda item: _check_file(storage, item, record, quick=quick), listed))
    records = [result for result in results if isinstance(result, PartitionRecord)]
    problems = [result for result in results if isinstance(result, str)]
    problems += manifest.chain_problems(records, record)
    num_rows = run_records.rows_wanted((), records)
    try:
        runs = run_records.read_runs(storage)
        num_rows = run_records.rows_wanted(runs, records)
        most = max((run.num_rows for run in runs), default=0)
        problems += [
            f"{extra.partition.key} holds {extra.partition}, but no run asked for more than {most} rows"
            for extra in records
            if extra.stop > most
        ]
    except CorruptBuildError as exc:
        problems.append(str(exc))
    for hole in _merged(manifest.pending(num_rows, record, records)):
        problems.append(f"{hole} of 0..{num_rows - 1} are missing")
    try:
        problems += _manifest_problems(storage, records)
    except CorruptBuildError as exc:
        problems.append(str(exc))
    if not num_rows:
        problems.append("no rows yet: no run has begun; run it again")
    if not manifest.is_marked_complete(storage):
        problems.append(f"{SUCCESS_KEY} is missing: the build was not finished; run it again")
    return Verification(url=storage.url, num_rows=num_rows, records=tuple(records), problems=tuple(problems))


def _merged(partitions: Sequence[Partition]) -> list[Partition]:
    """The same rows in as few ranges as possible."""
    ranges = list[Partition]()
    for partition in partitions:
        if ranges and ranges[-1].stop == partition.start:
            ranges[-1] = Partition(start=ranges[-1].start, stop=partition.stop)
        else:
            ranges.append(partition)
    return ranges


def _manifest_problems(storage: Storage, records: Sequence[PartitionRecord]) -> Iterator[str]:
    listed = manifest.read_manifest(storage)
    committed = {record.partition.key: record for record in records}
    if not listed:
        yield f"{MANIFEST_KEY} is missing: the build was not finished; run it again"
        return
    for key in sorted(listed.keys() - committed.keys()):
        yield f"{key} is in the manifest, but it is missing or unreadable"
    for key in sorted(committed.keys() - listed.keys()):
        yield f"{key} is committed, but not in the manifest: run the build again to bring it up to date"
    for key in sorted(listed.keys() & committed.keys()):
        if listed[key] != committed[key]:
            yield f"{key} is not the file that the manifest describes"


def _check_file(
    storage: Storage, item: StoredObject, build: BuildRecord, *, quick: bool
) -> PartitionRecord | str:
    try:
        record = manifest.footer_of(storage, item.key, size=item.size)
        if not quick:
            _check_pages(storage.read(item.key), item.key, record, build)
    except MagpieError as exc:
        return str(exc)
    return record


def _check_pages(data: bytes, key: str, record: PartitionRecord, build: BuildRecord) -> None:
    """Decode every page, with checksums. CorruptBuildError for damage, wrong columns or wrong row ids."""
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
            table.validate(full=True)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(f"{key} is damaged: {exc}") from exc
    if not table.schema.equals(schema_of(build.columns), check_metadata=False):
        raise CorruptBuildError(f"{key} has other columns than the build: {', '.join(table.column_names)}")
    if table.column("row_id").to_pylist() != list(range(record.start, record.stop)):
        raise CorruptBuildError(f"{key} does not hold {record.partition} in order")
