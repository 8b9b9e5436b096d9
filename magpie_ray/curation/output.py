"""A curated data set at its output: the layout, records and footers of a build, written by one process.

So verify, show, export and push read a curated data set as they read a build. Invariants: build.json is
created exclusively before any row, every file is created exclusively, and _SUCCESS is written last. The rows
follow from the identity, so a file that an interrupted run left is as good as a new one. Footers name no run,
so that the same data set always has the same bytes.
"""

import base64
import importlib.metadata
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import pyarrow as pa

from magpie_ray.dataset import build_record, completion, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.parquet import partition_file
from magpie_ray.errors import AlreadyExistsError, ConfigError, CorruptBuildError
from magpie_ray.inputs.overlap import would_read
from magpie_ray.preflight.checks import check_output
from magpie_ray.preflight.existing import read_existing, refusing
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import PartitionRecord

ROWS_PER_FILE = 100_000

# A footer of a curated data set names no run.
_NO_RUN = 0
_PACKAGES = ("magpie-ray", "pyarrow", "rensa", "duckdb")


@dataclass(frozen=True, kw_only=True, slots=True)
class CuratedSet:
    """A data set that is to be made.

    kind: the command, such as dedupe. identity: everything else that decides the rows, by dotted key: the
    settings, and the identity of each source. schema: of the rows; the first field is row_id, int64.
    config: for readers, without secrets; it decides nothing. packages: whose versions are recorded.
    """

    kind: str
    identity: Mapping[str, object]
    schema: pa.Schema
    rows_per_file: int = ROWS_PER_FILE
    compression: str = "zstd"
    config: Mapping[str, object] = field(default_factory=dict)
    packages: tuple[str, ...] = _PACKAGES

    def __post_init__(self) -> None:
        first = self.schema.field(0)
        assert (first.name, first.type) == ("row_id", pa.int64()), "row_id comes first"

    @property
    def record(self) -> BuildRecord:
        """The content of build.json."""
        schema = self.schema.remove_metadata().serialize().to_pybytes()
        return BuildRecord(
            identity={"kind": self.kind, **self.identity},
            rows_per_partition=self.rows_per_file,
            chat_format={},
            columns=tuple(self.schema.names),
            compression=self.compression,
            config={"kind": self.kind, **self.config},
            versions=_versions(self.packages),
            kept=base64.b64encode(schema).decode(),
        )


def check_apart(storage: Storage, places: Iterable[tuple[str, str]]) -> None:
    """ConfigError where the data set would lie in a place that it is made from. places: options and paths."""
    for option, place in places:
        if would_read(place, storage.url):
            raise ConfigError(
                f"DEST: got {storage.url}, which lies in {option} ({place}): files written there would be "
                "read as rows of it. Choose a place outside"
            )


def find_finished(storage: Storage, wanted: CuratedSet) -> int | None:
    """The rows of this data set where the output holds all of them; None where work is left to do.

    Call it before anything costly. It writes nothing. BuildMismatchError names the settings or sources that
    differ where the output holds another data set. PreflightError where the output can't be understood.
    """
    reader = storage.retrying_for(READ_SECONDS)
    existing = read_existing(reader)
    if existing is None:
        return None
    with refusing():
        build_record.check_same_build(existing, wanted.record, reader)
        records = manifest.read_committed(reader, existing)
        return max(record.stop for record in records) if manifest.is_up_to_date(reader, records) else None


def write_rows(
    storage: Storage,
    wanted: CuratedSet,
    batches: Iterable[pa.RecordBatch],
    *,
    finishing: Callable[[Sequence[PartitionRecord]], object] = lambda records: None,
) -> int:
    """Write the data set at its output, and _SUCCESS last. Returns the number of rows.

    batches: of the schema, in order of row_id: 0, 1, 2, ... At most one file and one batch are in memory.
    Files that an earlier run has written stay. finishing: is called with all files before _SUCCESS is
    written, such as to write the card. ConfigError where there are no rows, and then nothing is
    written; BuildMismatchError where the output holds another data set; StorageError.
    """
    storage = check_output(storage, single_writer=False)
    batches = iter(batches)
    first = next((batch for batch in batches if batch.num_rows), None)
    if first is None:
        raise ConfigError(f"{wanted.kind}: there are no rows, so {storage.url} is left as it is")
    build = build_record.open_build(storage, wanted.record)
    run = run_records.start_run(storage, num_rows=0, host=socket.gethostname(), config=build.config)
    try:
        records = list(_write_files(storage, build, chain([first], batches)))
    except BaseException as exc:
        is_stop = isinstance(exc, (KeyboardInterrupt, SystemExit))
        outcome = "interrupted" if is_stop else "failed"
        run_records.end_run(storage, run, outcome=outcome, cause=None if is_stop else str(exc))
        raise
    rows = records[-1].stop
    run = run_records.end_run(storage, replace(run, num_rows=rows), outcome="done")
    finishing(records)
    completion.finish(storage, build, records, num_rows=rows, run=run)
    return rows


def _write_files(
    storage: Storage, build: BuildRecord, batches: Iterable[pa.RecordBatch]
) -> Iterator[PartitionRecord]:
    committed = {record.start: record for record in manifest.read_committed(storage, build)}
    start = 0
    for table in _tables(batches, build.schema, build.rows_per_partition):
        stop = start + table.num_rows
        record = PartitionRecord(start=start, stop=stop, fingerprint=build.fingerprint, run=_NO_RUN)
        ids = table.column("row_id").to_numpy()
        assert ids[0] == start, f"row {start} is missing"
        assert ids[-1] == stop - 1, f"row {stop - 1} is missing"
        there = committed.get(start)
        yield there if there and there.stop == stop else _create(storage, table, record, build.compression)
        start = stop


def _create(storage: Storage, table: pa.Table, record: PartitionRecord, compression: str) -> PartitionRecord:
    data, written = partition_file(table, record, compression)
    key = record.partition.key
    try:
        storage.create(key, data)
    except AlreadyExistsError:
        theirs = manifest.footer_of(storage, key, size=storage.size(key))
        if (theirs.fingerprint, theirs.stop) != (record.fingerprint, record.stop):
            raise CorruptBuildError(
                f"{storage.display(key)} belongs to another data set: move it away, then run the same "
                "command again"
            ) from None
        return theirs
    return written


def _tables(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows_per_file: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows_per_file`; the last one may be shorter."""
    waiting, rows = list[pa.RecordBatch](), 0
    for batch in batches:
        waiting.append(batch.cast(schema))
        rows += batch.num_rows
        while rows >= rows_per_file:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, rows_per_file).combine_chunks()
            waiting = table.slice(rows_per_file).to_batches()
            rows -= rows_per_file
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of these packages, as far as they are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
