"""What is committed and what is pending, read from the partitions' own footers.

What always holds: the footers are the truth; manifest.json is a summary that saves reading them again and
may be stale, missing or damaged without harm: what it can't tell is read from the footers, and the next
checkpoint replaces it; _SUCCESS stands only over a complete build.
"""

import json
import logging
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from magpie_ray.counters import Tally
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.layout import now, parse_json
from magpie_ray.dataset.parquet import FOOTER_READ_BYTES, footer_bytes, parse_record, read_record
from magpie_ray.dataset.run_records import RunRecord, read_runs
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord

log = logging.getLogger(__name__)

MANIFEST_KEY = "_magpie/manifest.json"
SUCCESS_KEY = "_SUCCESS"

# One footer is two small requests of mostly waiting; S3 serves far more in parallel.
_READERS = 32
# A message names so many files; `verify` lists all.
_SHOWN_PROBLEMS = 20


def read_committed(
    storage: Storage, build: BuildRecord, *, listed: Sequence[StoredObject] | None = None
) -> list[PartitionRecord]:
    """All partitions of the build, in row order, checked. Footers only of what the manifest does not know.

    `listed`: what is in data/, for who has looked already.

    CorruptBuildError names every file that does not belong; nothing is deleted.
    """
    try:
        told = read_manifest(storage)
    except CorruptBuildError as exc:
        log.warning("%s; reading all footers instead", exc)
        told = {}
    fingerprint = build.fingerprint
    known = {key: record for key, record in told.items() if record.fingerprint == fingerprint}
    records, unknown = list[PartitionRecord](), list[StoredObject]()
    for item in storage.list_objects(DATA_PREFIX) if listed is None else listed:
        record = known.get(item.key)
        if record and record.size == item.size:
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
            f"{storage.display(DATA_PREFIX)} holds what does not belong to this build:\n  "
            + "\n  ".join([*problems[:_SHOWN_PROBLEMS], *more])
        )
    return records


def read_new(storage: Storage, build: BuildRecord, known: Container[str]) -> list[PartitionRecord]:
    """Partitions of the build whose keys are not known yet. CorruptBuildError for what does not belong."""
    items = [item for item in storage.list_objects(DATA_PREFIX) if item.key not in known]
    with ThreadPoolExecutor(_READERS) as pool:
        records = list(pool.map(lambda item: footer_of(storage, item.key, size=item.size), items))
    for record in records:
        if record.fingerprint != build.fingerprint:
            raise CorruptBuildError(f"{storage.display(record.partition.key)} belongs to another build")
    return records


def footer_of(storage: Storage, key: str, *, size: int) -> PartitionRecord:
    """The record in one file's footer. CorruptBuildError when it is not a partition of ours."""
    tail = storage.read_tail(key, FOOTER_READ_BYTES)
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
    fingerprint, grid = build.fingerprint, build.rows_per_partition  # once: the first is a hash
    end = 0
    for record in sorted(records, key=lambda r: r.start):
        wrong = []
        if record.fingerprint != fingerprint:
            wrong.append(f"belongs to another build (fingerprint {record.fingerprint[:12]}…)")
        if record.start // grid != (record.stop - 1) // grid:
            wrong.append(f"({record.partition}) crosses a grid line (multiples of {grid})")
        if record.start < end:
            wrong.append(f"({record.partition}) overlaps the file before it, which ends at {end - 1}")
        problems += [f"{record.partition.key} {what}" for what in wrong]
        end = max(end, record.stop)
    return problems


def pending(num_rows: int, build: BuildRecord, records: Iterable[PartitionRecord]) -> list[Partition]:
    """What is left to generate for 0..num_rows-1."""
    return partitioning.pending(num_rows, build.rows_per_partition, [record.partition for record in records])


def read_manifest(storage: Storage) -> dict[str, PartitionRecord]:
    """The partitions of the last manifest, by key; empty when there is none.

    CorruptBuildError when it can't be understood.
    """
    try:
        fields = parse_json(storage.read(MANIFEST_KEY), MANIFEST_KEY)
    except ObjectNotFoundError:
        return {}
    try:
        shared = {"fingerprint": fields["fingerprint"]} if "fingerprint" in fields else {}
        records = [parse_record({**shared, **entry}) for entry in fields["partitions"]]
    except (KeyError, TypeError, ValueError) as exc:
        raise CorruptBuildError(f"{storage.display(MANIFEST_KEY)} is foreign or damaged: {exc}") from exc
    return {record.partition.key: record for record in records}


def is_up_to_date(storage: Storage, records: Iterable[PartitionRecord]) -> bool:
    """Whether the last words are written: _SUCCESS, and a manifest of exactly these partitions."""
    try:
        told = read_manifest(storage)
    except CorruptBuildError:
        return False
    return is_marked_complete(storage) and told == {record.partition.key: record for record in records}


def write_manifest(
    storage: Storage, build: BuildRecord, records: Iterable[PartitionRecord], *, num_rows: int
) -> None:
    """The summary of what is committed: a checkpoint while running, the final word at the end."""
    fingerprint = build.fingerprint
    ordered = sorted(records, key=lambda record: record.start)
    tally = Tally.sum(Tally.of_record(record) for record in ordered)
    fields = {
        "layout_version": build.layout_version,
        "fingerprint": fingerprint,
        "num_rows": num_rows,
        "rows": tally.rows,
        "bytes": sum(record.size for record in ordered),
        "attempts": tally.attempts,
        "rejected": dict(tally.rejected),
        "user_tokens": tally.user_tokens,
        "assistant_tokens": tally.assistant_tokens,
        "written": now(),
        "partitions": [_entry(record, fingerprint) for record in ordered],
    }
    # Compact: a hundred thousand partitions make tens of megabytes otherwise, several times an hour.
    storage.replace(MANIFEST_KEY, json.dumps(fields, sort_keys=True, separators=(",", ":")).encode())


def _entry(record: PartitionRecord, fingerprint: str) -> dict[str, object]:
    """A record's fields, without the fingerprint that it shares with its build."""
    # By hand: asdict takes ten times as long, and holds the lock that the job's loop needs.
    entry: dict[str, object] = {
        "start": record.start,
        "stop": record.stop,
        "run": record.run,
        "size": record.size,
        "rejected": record.rejected,
        "user_tokens": record.user_tokens,
        "assistant_tokens": record.assistant_tokens,
    }
    if record.fingerprint != fingerprint:
        entry["fingerprint"] = record.fingerprint
    return entry


def finish(
    storage: Storage,
    build: BuildRecord,
    records: Sequence[PartitionRecord],
    *,
    num_rows: int,
    run: RunRecord | None,
) -> None:
    """The last words of `run` (None: there was nothing to do) over rows 0..num_rows-1, all committed.

    _SUCCESS is left to a run that began later and still works on more rows, and it waits while rows further
    up are committed and not yet all of those between.
    """
    write_manifest(storage, build, records, num_rows=num_rows)
    later = [
        r.num_rows for r in read_runs(storage) if run and r.number > run.number and r.outcome == "running"
    ]
    end = max([num_rows, *later, *(record.stop for record in records)])
    if not pending(end, build, records):
        mark_complete(storage)


def mark_complete(storage: Storage) -> None:
    """Last of all: readers that look for _SUCCESS may start."""
    storage.replace(SUCCESS_KEY, b"")


def mark_growing(storage: Storage) -> None:
    """Before a complete build gets more rows."""
    storage.delete(SUCCESS_KEY)


def is_marked_complete(storage: Storage) -> bool:
    """Whether _SUCCESS is there."""
    return storage.exists(SUCCESS_KEY)
