"""What is committed and what is pending, read from the partitions' own footers.

Invariants: the footers are the truth. manifest.json is a summary that saves reading them again; it may be
stale, missing or damaged without harm, as the footers fill its gaps and the next checkpoint replaces it.
_SUCCESS exists only over a complete build (dataset.completion writes it).
"""

import hashlib
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import TypeAdapter

from magpie_ray.counters import Tally
from magpie_ray.dataset import layout, partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.data_folder import DataFolder, read_data_folder
from magpie_ray.dataset.layout import MANIFEST_KEY, SUCCESS_KEY
from magpie_ray.dataset.parquet import FOOTER_READ_BYTES, footer_bytes, read_record
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord
from magpie_ray.utils.background import DaemonExecutor

log = logging.getLogger(__name__)

# One footer is two small requests of mostly waiting; S3 serves far more in parallel.
_READERS = 32
# A message names so many files; `verify` lists all.
_SHOWN_PROBLEMS = 20


# The manifest of a large build, parsed whole, takes ten times the memory of its text.
_PIECE_BYTES = 1 << 20
_PARTITIONS = re.compile(rb'"partitions"\s*:\s*\[')
_BETWEEN_RECORDS = re.compile(rb"\}\s*,\s*\{")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Manifest:
    """What is read of manifest.json. Partitions without a fingerprint are of the build that it names."""

    partitions: tuple[PartitionRecord, ...]
    fingerprint: str = ""


_MANIFEST = TypeAdapter(_Manifest)
_RECORDS = TypeAdapter(tuple[PartitionRecord, ...])


def read_committed(
    storage: Storage,
    build: BuildRecord,
    *,
    folder: DataFolder | None = None,
    known: Mapping[str, PartitionRecord] | None = None,
) -> list[PartitionRecord]:
    """All partitions of the build, in row order, checked. Reads only footers that the manifest lacks.

    folder: data/, for a caller that has listed it. known: records that their writers have reported, by key.
    CorruptBuildError names every file that has the name of a partition and does not belong to the build;
    nothing is deleted.
    """
    known, items = dict(known or {}), (folder or read_data_folder(storage)).partitions
    if not all(item.key in known for item in items):
        ours = {record.start: record for record in known.values()}
        try:
            told = _more(_records_in_manifest(storage), ours, build)
            known |= {record.partition.key: record for record in told.values()}
        except CorruptBuildError as exc:
            log.warning("%s; reading all footers instead", exc)
    records, unknown = list[PartitionRecord](), list[StoredObject]()
    for item in items:
        record = known.get(item.key)
        if record and (record.fingerprint, record.size) == (build.fingerprint, item.size):
            records.append(record)
        else:
            unknown.append(item)
    with DaemonExecutor(_READERS) as pool:
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
            + "\nNothing was deleted: move them away and run the same command again, or choose another "
            "output.path"
        )
    return records


def read_new(
    storage: Storage, build: BuildRecord, known: Container[str], *, folder: DataFolder
) -> list[PartitionRecord]:
    """Partitions in `folder` whose keys are not known yet. CorruptBuildError names one of another build."""
    items = [item for item in folder.partitions if item.key not in known]
    with DaemonExecutor(_READERS) as pool:
        records = list(pool.map(lambda item: footer_of(storage, item.key, size=item.size), items))
    for record in records:
        if record.fingerprint != build.fingerprint:
            raise CorruptBuildError(
                f"{storage.display(record.partition.key)} belongs to another build: move it away"
            )
    return records


def footer_of(
    storage: Storage, key: str, *, size: int, read_bytes: int = FOOTER_READ_BYTES
) -> PartitionRecord:
    """The record in one file's footer, from its last `read_bytes`, or more where the footer is longer.

    CorruptBuildError when the file is not a partition of ours: at the second reading, because the first may
    have been damaged on its way.
    """

    def read() -> PartitionRecord:
        tail = storage.read_tail(key, read_bytes, size=size)
        if len(tail) < size and footer_bytes(tail) > len(tail):
            tail = storage.read_tail(key, min(size, footer_bytes(tail)), size=size)
        return read_record(tail, key=key, size=size)

    try:
        return read()
    except CorruptBuildError:
        return read()


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


def _more(
    theirs: Iterable[PartitionRecord], ours: Mapping[int, PartitionRecord], build: BuildRecord
) -> dict[int, PartitionRecord]:
    """What only they know of this build, by first row: other files, and the hashes of equal records."""
    return {
        record.start: record
        for record in theirs
        if record.fingerprint == build.fingerprint
        and ((mine := ours.get(record.start)) is None or (mine.sha256 is None and mine == record))
    }


def read_manifest(storage: Storage) -> dict[str, PartitionRecord]:
    """The partitions of the last manifest by key, {} without one. CorruptBuildError for a damaged one."""
    return {record.partition.key: record for record in _records_in_manifest(storage)}


def _records_in_manifest(storage: Storage) -> Iterator[PartitionRecord]:
    with suppress(ObjectNotFoundError):
        yield from parse_manifest(storage.read(MANIFEST_KEY), storage.display(MANIFEST_KEY))


def parse_manifest(raw: bytes, name: str, *, piece_bytes: int = _PIECE_BYTES) -> Iterator[PartitionRecord]:
    """The partitions of a manifest, of whose text so much is parsed at once.

    CorruptBuildError says that the object `name` is none: before the first partition, or after some.
    """
    begin, end = _PARTITIONS.search(raw), raw.rfind(b"]")
    start = begin.end() if begin else len(raw)
    around = raw if end < start else raw[:start] + raw[end:]
    fingerprint = layout.parse_record(around, _MANIFEST, name).fingerprint
    while start < end:
        cut = _BETWEEN_RECORDS.search(raw, start + piece_bytes, end)
        stop, following = (cut.start() + 1, cut.end() - 1) if cut else (end, end)
        for record in layout.parse_record(b"[%b]" % raw[start:stop], _RECORDS, name):
            if record.start >= record.stop:
                raise CorruptBuildError(
                    f"{name} is damaged or foreign (rows {record.start} to {record.stop})"
                )
            yield record if record.fingerprint else replace(record, fingerprint=fingerprint)
        start = following


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
    """Write the summary of what is committed, in place of an earlier one, from which it takes hashes."""
    ours = {record.start: record for record in records}
    with suppress(CorruptBuildError):
        more = _more(_records_in_manifest(storage), ours, build)
        ours |= {start: more[start] for start in ours.keys() & more.keys()}
    _replace_manifest(storage, build, ours.values(), num_rows=num_rows)


class Checkpoints:
    """The manifest while a run is at work. What other drivers have written into it stays there."""

    def __init__(self, storage: Storage, build: BuildRecord, *, num_rows: int) -> None:
        self._storage, self._build, self._num_rows = storage, build, num_rows
        self._written = b""  # the hash of the last checkpoint
        self._theirs: dict[int, PartitionRecord] = {}  # what only other drivers have told

    def write(self, records: Iterable[PartitionRecord]) -> None:
        """Add these to the manifest, which is read before and parsed only if somebody else has written it."""
        ours = {record.start: record for record in records}
        self._theirs |= self._news(ours)
        ours |= _more(self._theirs.values(), ours, self._build)
        num_rows = max([self._num_rows, *(record.stop for record in ours.values())])
        self._written = _replace_manifest(self._storage, self._build, ours.values(), num_rows=num_rows)

    def _news(self, ours: Mapping[int, PartitionRecord]) -> dict[int, PartitionRecord]:
        with suppress(ObjectNotFoundError, CorruptBuildError):
            raw = self._storage.read(MANIFEST_KEY)
            if hashlib.sha256(raw).digest() != self._written:
                return _more(parse_manifest(raw, MANIFEST_KEY), ours, self._build)
        return {}


def _replace_manifest(
    storage: Storage, build: BuildRecord, records: Iterable[PartitionRecord], *, num_rows: int
) -> bytes:
    """Returns the SHA-256 of what it writes."""
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
    names = [name for name in ("further", "unanswered") if not getattr(tally, name)]
    left_out = {"partitions": {"__all__": {*names, *(["fingerprint"] if is_shared else [])}}}
    raw = layout.JSON_OBJECT.dump_json(fields, exclude=left_out)
    storage.replace(MANIFEST_KEY, raw)
    return hashlib.sha256(raw).digest()


def mark_complete(storage: Storage) -> None:
    """Write _SUCCESS, after everything else: readers that wait for it may start."""
    storage.replace(SUCCESS_KEY, b"")


def mark_growing(storage: Storage) -> None:
    """Delete _SUCCESS, before a complete build gets more rows."""
    storage.delete(SUCCESS_KEY)


def is_marked_complete(storage: Storage) -> bool:
    """Whether _SUCCESS exists."""
    return storage.exists(SUCCESS_KEY)
