"""What is committed and what is pending, read from the partitions' own footers.

Invariants: the footers are the truth. manifest.json is a summary that saves reading them again; it may be
stale, missing or damaged without harm, as the footers fill its gaps and the next checkpoint replaces it.
_SUCCESS exists only over a complete build.
"""

import logging
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from magpie_ray.counters import Tally
from magpie_ray.dataset import layout, partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.layout import MANIFEST_KEY, SUCCESS_KEY
from magpie_ray.dataset.parquet import FOOTER_READ_BYTES, footer_bytes, read_record
from magpie_ray.dataset.run_records import RunRecord, read_runs
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord

log = logging.getLogger(__name__)

# One footer is two small requests of mostly waiting; S3 serves far more in parallel.
_READERS = 32
# A message names so many files; `verify` lists all.
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    """What is read of manifest.json. Partitions without a fingerprint are of the build that it names."""

    partitions: tuple[PartitionRecord, ...]
    fingerprint: str = ""


_MANIFEST = TypeAdapter(_Manifest)


def read_committed(
    storage: Storage, build: BuildRecord, *, listed: Sequence[StoredObject] | None = None
) -> list[PartitionRecord]:
    """All partitions of the build, in row order, checked. Reads only footers that the manifest lacks.

    listed: the objects in data/, for a caller that has listed them. CorruptBuildError names every file that
    does not belong to the build; nothing is deleted.
    """
    try:
        known = read_manifest(storage)
    except CorruptBuildError as exc:
        log.warning("%s; reading all footers instead", exc)
        known = {}
    records, unknown = list[PartitionRecord](), list[StoredObject]()
    for item in storage.list_objects(DATA_PREFIX) if listed is None else listed:
        record = known.get(item.key)
        if record and (record.fingerprint, record.size) == (build.fingerprint, item.size):
            records.append(record)
        else:
            unknown.append(item)
    with ThreadPoolExecutor(_READERS) as pool:
        results = list(pool.map(lambda item: _record_or_problem(storage, item), unknown))
    records += [result for result in results if isinstance(result, PartitionRecord)]
    records.sort(key=lambda record: record.start)
    problems = [result for result in results if isinstance(result, str)]
    problems += chain_problems(records, build)
    if problems:
        more = [f"... and {len(problems) - _SHOWN_PROBLEMS} more"] if len(problems) > _SHOWN_PROBLEMS else []
        raise CorruptBuildError(
            f"{storage.display(DATA_PREFIX)} holds files that do not belong to this build:\n  "
            + "\n  ".join([*problems[:_SHOWN_PROBLEMS], *more])
        )
    return records


def read_new(storage: Storage, build: BuildRecord, known: Container[str]) -> list[PartitionRecord]:
    """Partitions of the build whose keys are not known yet. CorruptBuildError names a foreign file."""
    items = [item for item in storage.list_objects(DATA_PREFIX) if item.key not in known]
    with ThreadPoolExecutor(_READERS) as pool:
        records = list(pool.map(lambda item: footer_of(storage, item.key, size=item.size), items))
    for record in records:
        if record.fingerprint != build.fingerprint:
            raise CorruptBuildError(f"{storage.display(record.partition.key)} belongs to another build")
    return records


def footer_of(
    storage: Storage, key: str, *, size: int, read_bytes: int = FOOTER_READ_BYTES
) -> PartitionRecord:
    """The record in one file's footer, from its last `read_bytes`, or more where the footer is longer.

    CorruptBuildError when the file is not a partition of ours.
    """
    tail = storage.read_tail(key, read_bytes)
    if len(tail) < size and footer_bytes(tail) > len(tail):
        tail = storage.read_tail(key, min(size, footer_bytes(tail)))
    return read_record(tail, key=key, size=size)


def _record_or_problem(storage: Storage, item: StoredObject) -> PartitionRecord | str:
    try:
        return footer_of(storage, item.key, size=item.size)
    except CorruptBuildError as exc:
        return str(exc)


def chain_problems(records: Sequence[PartitionRecord], build: BuildRecord) -> list[str]:
    """What is wrong with the partitions taken together: other builds, crossed grid lines, overlaps."""
    problems = list[str]()
    grid, end = build.rows_per_partition, 0
    for record in sorted(records, key=lambda r: r.start):
        key = record.partition.key
        if record.fingerprint != build.fingerprint:
            problems.append(f"{key} belongs to another build (fingerprint {record.fingerprint[:12]}…)")
        if record.start // grid != (record.stop - 1) // grid:
            problems.append(f"{key} ({record.partition}) crosses a grid line (multiples of {grid})")
        if record.start < end:
            problems.append(
                f"{key} ({record.partition}) overlaps the file before it, which ends at {end - 1}"
            )
        end = max(end, record.stop)
    return problems


def pending(num_rows: int, build: BuildRecord, records: Iterable[PartitionRecord]) -> list[Partition]:
    """The partitions of rows 0..num_rows-1 that are still to be generated."""
    return partitioning.pending(num_rows, build.rows_per_partition, [record.partition for record in records])


def read_manifest(storage: Storage) -> dict[str, PartitionRecord]:
    """The partitions of the last manifest by key, {} without one. CorruptBuildError for a damaged one."""
    manifest = layout.read_record(storage, MANIFEST_KEY, _MANIFEST)
    if manifest is None:
        return {}
    records = [
        record if record.fingerprint else replace(record, fingerprint=manifest.fingerprint)
        for record in manifest.partitions
    ]
    try:
        return {record.partition.key: record for record in records}
    except ValueError as exc:
        raise CorruptBuildError(f"{storage.display(MANIFEST_KEY)} is damaged or foreign ({exc})") from exc


def is_up_to_date(storage: Storage, records: Iterable[PartitionRecord]) -> bool:
    """Whether _SUCCESS exists, and a manifest of exactly these partitions."""
    try:
        known = read_manifest(storage)
    except CorruptBuildError:
        return False
    return is_marked_complete(storage) and known == {record.partition.key: record for record in records}


def write_manifest(
    storage: Storage, build: BuildRecord, records: Iterable[PartitionRecord], *, num_rows: int
) -> None:
    """Write the summary of what is committed."""
    ordered = sorted(records, key=lambda record: record.start)
    tally = Tally.sum(ordered)
    fields = {
        "layout_version": build.layout_version,
        "fingerprint": build.fingerprint,
        "num_rows": num_rows,
        "rows": tally.rows,
        "bytes": sum(record.size for record in ordered),
        "attempts": tally.attempts,
        "rejected": dict(tally.rejected),
        "user_tokens": tally.user_tokens,
        "assistant_tokens": tally.assistant_tokens,
        "written": layout.now(),
        "partitions": ordered,
    }
    # Compact, as a hundred thousand partitions make tens of megabytes; and by pydantic, as asdict takes ten
    # times as long, and holds the lock that the job's loop needs.
    is_shared = all(record.fingerprint == build.fingerprint for record in ordered)
    left_out = {"partitions": {"__all__": {"fingerprint"}}} if is_shared else None
    storage.replace(MANIFEST_KEY, layout.JSON_OBJECT.dump_json(fields, exclude=left_out))


def finish(
    storage: Storage,
    build: BuildRecord,
    records: Sequence[PartitionRecord],
    *,
    num_rows: int,
    run: RunRecord | None,
) -> None:
    """Write the manifest and _SUCCESS at the end of `run`: rows 0..num_rows-1 are committed.

    run: None where there was nothing to do. _SUCCESS is left to a later run that still works on more rows,
    and it waits while rows further up are committed and some in between are not.
    """
    write_manifest(storage, build, records, num_rows=num_rows)
    later = [
        r.num_rows for r in read_runs(storage) if run and r.number > run.number and r.outcome == "running"
    ]
    end = max([num_rows, *later, *(record.stop for record in records)])
    if not pending(end, build, records):
        mark_complete(storage)


def mark_complete(storage: Storage) -> None:
    """Write _SUCCESS, after everything else: readers that wait for it may start."""
    storage.replace(SUCCESS_KEY, b"")


def mark_growing(storage: Storage) -> None:
    """Delete _SUCCESS, before a complete build gets more rows."""
    storage.delete(SUCCESS_KEY)


def is_marked_complete(storage: Storage) -> bool:
    """Whether _SUCCESS exists."""
    return storage.exists(SUCCESS_KEY)
