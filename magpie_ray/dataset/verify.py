"""Whether a build is complete and consistent, read from storage alone.

Invariants: lists every problem; changes and deletes nothing.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.data_folder import read_data_folder, stray_warning
from magpie_ray.dataset.layout import MANIFEST_KEY, SUCCESS_KEY
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import CorruptBuildError, MagpieError
from magpie_ray.storage.storage import Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord
from magpie_ray.utils.background import DaemonExecutor

_READERS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """The partitions of a build, and every problem with them. num_rows: that the build is to have.

    notes: what a user should know that makes no row wrong. unhashed: files of which no hash is recorded.
    """

    url: str
    num_rows: int
    records: tuple[PartitionRecord, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unhashed: int = 0

    @property
    def ok(self) -> bool:
        """Complete and consistent."""
        return not self.problems


def verify(storage: Storage, *, quick: bool = False) -> Verification:
    """Check records, footers, row ranges and, unless `quick`, the hash and every page of every file."""
    build = build_record.require_build(storage)
    problems, notes = list[str](), list[str]()
    try:
        manifested = manifest.read_manifest(storage)
    except CorruptBuildError as exc:
        manifested = None
        problems.append(str(exc))
    folder = read_data_folder(storage)

    def check(item: StoredObject) -> PartitionRecord | str:
        return _check_file(storage, item, build, (manifested or {}).get(item.key), quick=quick)

    with DaemonExecutor(_READERS) as pool:
        results = list(pool.map(check, folder.partitions))
    records = [result for result in results if isinstance(result, PartitionRecord)]
    problems += [result for result in results if isinstance(result, str)]
    problems += manifest.chain_problems(records, build)
    problems += [
        f"{key} was not written by magpie-ray, and readers of {DATA_PREFIX}*.parquet read it: move it away"
        for key in folder.foreign
    ]
    if strays := [key for key in folder.strays if key not in folder.foreign]:
        notes.append(stray_warning(storage, strays))
    each_run = list(run_records.read_each_run(storage))
    runs = [run for run in each_run if isinstance(run, RunRecord)]
    num_rows = run_records.rows_wanted(runs, records)
    problems += _run_problems(each_run, records)
    for hole in _merged(manifest.pending(num_rows, build, records)):
        problems.append(f"{hole} of 0..{num_rows - 1} are missing")
    if manifested is not None:
        problems += _manifest_problems(manifested, records)
    if not num_rows:
        problems.append("no rows yet: no run has begun; run it again")
    if not manifest.is_marked_complete(storage):
        problems.append(f"{SUCCESS_KEY} is missing: the build was not finished; run it again")
    unhashed = sum((manifested or {}).get(r.partition.key, r).sha256 is None for r in records)
    if unhashed and not quick:
        notes.append(
            f"no hash of {unhashed:,} of {len(records):,} files is recorded (their writer was killed, or an "
            "earlier version): a flipped byte outside their pages may go unnoticed"
        )
    return Verification(
        url=storage.url,
        num_rows=num_rows,
        records=tuple(records),
        problems=tuple(problems),
        notes=tuple(notes),
        unhashed=unhashed,
    )


def _run_problems(each_run: Sequence[RunRecord | str], records: Sequence[PartitionRecord]) -> Iterator[str]:
    """Damaged records of runs, and rows that no run asked for."""
    damaged = [run for run in each_run if isinstance(run, str)]
    yield from damaged
    most = max((run.num_rows for run in each_run if isinstance(run, RunRecord)), default=0)
    for extra in records:
        if extra.stop > most and not damaged:
            yield f"{extra.partition.key} holds {extra.partition}, but no run asked for more than {most} rows"


def _merged(partitions: Sequence[Partition]) -> list[Partition]:
    """The same rows in as few ranges as possible."""
    ranges = list[Partition]()
    for partition in partitions:
        if ranges and ranges[-1].stop == partition.start:
            ranges[-1] = Partition(start=ranges[-1].start, stop=partition.stop)
        else:
            ranges.append(partition)
    return ranges


def _manifest_problems(
    listed: Mapping[str, PartitionRecord], records: Sequence[PartitionRecord]
) -> Iterator[str]:
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
    storage: Storage,
    item: StoredObject,
    build: BuildRecord,
    manifested: PartitionRecord | None,
    *,
    quick: bool,
) -> PartitionRecord | str:
    try:
        record = manifest.footer_of(storage, item.key, size=item.size)
        if not quick:
            data = storage.read(item.key)
            _check_pages(data, item.key, record, build)
            if manifested == record:
                _check_hash(data, item.key, manifested.sha256)
    except MagpieError as exc:
        return str(exc)
    return record


def _check_hash(data: bytes, key: str, sha256: str | None) -> None:
    if sha256 is not None and (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise CorruptBuildError(
            f"{key} is damaged: its SHA-256 is {found}, but its writer recorded {sha256} in {MANIFEST_KEY}"
        )


def _check_pages(data: bytes, key: str, record: PartitionRecord, build: BuildRecord) -> None:
    """Decode every page, with checksums. CorruptBuildError for damage, wrong columns or wrong row ids."""
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()
            table.validate(full=True)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(f"{key} is damaged: {exc}") from exc
    if not table.schema.equals(build.schema, check_metadata=False):
        raise CorruptBuildError(f"{key} has other columns than the build: {', '.join(table.column_names)}")
    if table.column("row_id").to_pylist() != list(range(record.start, record.stop)):
        raise CorruptBuildError(f"{key} does not hold {record.partition} in order")
