"""Is a build complete and consistent? The answer, read from storage alone.

What always holds: every problem is listed, nothing is changed or deleted.
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
    """What there is, and everything that is wrong with it."""

    url: str
    num_rows: int
    records: tuple[PartitionRecord, ...]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Complete and consistent."""
        return not self.problems


def verify(storage: Storage, *, quick: bool = False) -> Verification:
    """Check everything: records, footers, row ranges, and (unless `quick`) every page of every file."""
    record = build_record.require_build(storage)
    listed = storage.list_objects(DATA_PREFIX)
    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(lambda item: _check_file(storage, item, record, quick=quick), listed))
    records = [result for result in results if isinstance(result, PartitionRecord)]
    problems = [result for result in results if isinstance(result, str)]
    problems += manifest.chain_problems(records, record)
    num_rows = max((found.stop for found in records), default=0)
    try:
        runs = run_records.read_runs(storage)
        num_rows = run_records.rows_wanted(runs, records)
        most = max((run.num_rows for run in runs), default=0)
        problems += [
            f"{found.partition.key} holds {found.partition}, but no run asked for more than {most} rows"
            for found in records
            if found.stop > most
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


def _merged(partitions: Sequence[Partition]) -> Iterator[Partition]:
    """Neighbours joined: what is missing reads better in a few ranges."""
    joined: Partition | None = None
    for partition in partitions:
        if joined and joined.stop == partition.start:
            joined = Partition(start=joined.start, stop=partition.stop)
            continue
        if joined:
            yield joined
        joined = partition
    if joined:
        yield joined


def _manifest_problems(storage: Storage, records: Sequence[PartitionRecord]) -> Iterator[str]:
    told = manifest.read_manifest(storage)
    found = {r.partition.key: r for r in records}
    if not told:
        yield f"{MANIFEST_KEY} is missing: the build was not finished; run it again"
        return
    for key in sorted(told.keys() - found.keys()):
        yield f"{key} stands in the manifest, but it is missing or unreadable"
    for key in sorted(found.keys() - told.keys()):
        yield f"{key} is committed, but not in the manifest: run the build again to bring it up to date"
    for key in sorted(told.keys() & found.keys()):
        if told[key] != found[key]:
            yield f"{key} is not the file that the manifest describes"


def _check_file(
    storage: Storage, item: StoredObject, record: BuildRecord, *, quick: bool
) -> PartitionRecord | str:
    try:
        found = manifest.footer_of(storage, item.key, size=item.size)
        if not quick:
            _read_through(storage.read(item.key), item.key, found, record)
    except MagpieError as exc:
        return str(exc)
    return found


def _read_through(data: bytes, key: str, found: PartitionRecord, record: BuildRecord) -> None:
    """Decode every page, checksums included. CorruptBuildError for damage, wrong columns or row ids."""
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
            table.validate(full=True)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(f"{key} is damaged: {exc}") from exc
    expected = schema_of(record.columns)
    if not table.schema.equals(expected, check_metadata=False):
        raise CorruptBuildError(f"{key} has other columns than the build: {', '.join(table.column_names)}")
    if table.column("row_id").to_pylist() != list(range(found.start, found.stop)):
        raise CorruptBuildError(f"{key} does not hold {found.partition} in order")
