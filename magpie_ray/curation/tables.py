"""A table of a query: the files that a name stands for, and what they are.

A table is a finished data set of magpie_ray, or Parquet or JSON lines files of any other program. Invariants:
files are in the order of their names, which for a data set is the order of row_id; the identity of a table
follows from its content and not from where it lies.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from magpie_ray.config.output_path import LATEST
from magpie_ray.curation.table_files import TableFile
from magpie_ray.dataset import build_record, layout, manifest
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.parquet import footer_bytes
from magpie_ray.dataset.schedule import follow_latest
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.inputs.source import Source, SourceFile, open_source
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import StoredObject
from magpie_ray.utils.background import DaemonExecutor

TableFormat = Literal["Parquet", "JSON lines"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAMES = re.compile(r"[*?\[]|::|\.(parquet|pq|jsonl|ndjson|json)(\.\w+)?$", re.IGNORECASE)
_READERS = 16
_TRAILER_BYTES = 8
_PIECE_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One name of a query. url: where it lies, for people.

    record: of a data set of magpie_ray, None for other files. known: what identifies the content of a data
    set, by its records.
    """

    name: str
    url: str
    format: TableFormat
    files: tuple[TableFile, ...]
    record: BuildRecord | None = None
    known: Mapping[str, object] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def parse_tables(texts: Iterable[str]) -> dict[str, str]:
    """Where each table lies, by name, from texts of the form NAME=PATH. ConfigError for another form."""
    places = dict[str, str]()
    for text in texts:
        name, separator, place = text.partition("=")
        if not separator or not _NAME.fullmatch(name) or not place.strip():
            raise ConfigError(
                f"--from: got {text!r}, must be NAME=PATH, such as rows=s3://bucket/build; a name has "
                "letters, digits and underscores, and begins with no digit"
            )
        if name.lower() in (known.lower() for known in places):
            raise ConfigError(f"--from: the name {name} is given twice: SQL needs a name for each source")
        places[name] = place.strip()
    return places


def find_table(name: str, url: str, options: Mapping[str, object]) -> Table:
    """The table that lies at a path: a finished data set, or the files of a path, folder or glob.

    options: of fsspec. PreflightError for a data set that is not complete, or where there is no such file;
    CorruptBuildError; StorageError.
    """
    if not (_FILE_NAMES.search(url) or os.path.isfile(url)):
        place = follow_latest(url, options, retry_seconds=READ_SECONDS)
        storage = Storage(place, options, retry_seconds=READ_SECONDS)
        record = build_record.read_build(storage)
        if record is not None:
            return _finished(name, storage, record)
        if storage.exists(layout.latest_key(LATEST)):
            build_record.require_build(storage)
    return _of_files(name, open_source(f"--from {name}", url, options))


def table_of_build(name: str, storage: Storage) -> Table:
    """The committed rows of a build, complete or not. BuildNotFoundError where there is none."""
    record = build_record.require_build(storage)
    return Table(
        name=name,
        url=storage.url,
        format="Parquet",
        files=tuple(_stored_file(storage, item) for item in read_data_folder(storage).partitions),
        record=record,
    )


def identity_of(table: Table) -> Mapping[str, object]:
    """What identifies the content of a table, for the fingerprint of what is made of it.

    Of a data set: its fingerprint, its rows and a hash of what its records say of each file. Of other Parquet
    files: a hash of their footers, which say where each column lies and how long it is. Of JSON lines: a hash
    of every byte.
    """
    if table.record is not None:
        return table.known
    with DaemonExecutor(_READERS) as pool:
        hashes = list(pool.map(_footer_hash if table.format == "Parquet" else _hash, table.files))
    content = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()
    return {"files": len(table.files), "bytes": table.bytes, "content": content}


def _finished(name: str, storage: Storage, record: BuildRecord) -> Table:
    if not manifest.is_marked_complete(storage):
        raise PreflightError(
            f"--from {name}: {storage.url} is not complete: let its command end first. Its rows so far are "
            f"read as plain files: --from {name}={storage.display('data')}"
        )
    records = manifest.read_committed(storage, record)
    facts = [(part.start, part.stop, part.size, part.sha256) for part in records]
    return Table(
        name=name,
        url=storage.url,
        format="Parquet",
        files=tuple(
            _stored_file(storage, StoredObject(key=part.partition.key, size=part.size)) for part in records
        ),
        record=record,
        known={
            "fingerprint": record.fingerprint,
            "rows": sum(part.rows for part in records),
            "content": hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        },
    )


def _stored_file(storage: Storage, item: StoredObject) -> TableFile:
    return TableFile(
        name=storage.display(item.key),
        size=item.size,
        read_range=lambda start, stop: storage.read_range(item.key, start, stop),
    )


def _of_files(name: str, source: Source) -> Table:
    first = source.files[0]
    if source.format == "CSV":
        raise PreflightError(
            f"--from {name}: {first.name} is CSV, which has no types: use Parquet or JSON lines"
        )
    if first.compression not in (None, "gzip"):
        raise PreflightError(
            f"--from {name}: {first.name} is compressed in a way that DuckDB does not read: use gzip or none"
        )
    with source.reading(first):
        sizes = [int(source.fs.size(file.path) or 0) for file in source.files]
    return Table(
        name=name,
        url=source.url,
        format=source.format,
        files=tuple(_plain_file(source, file, size) for file, size in zip(source.files, sizes, strict=True)),
    )


def _plain_file(source: Source, file: SourceFile, size: int) -> TableFile:
    def read_range(start: int, stop: int) -> bytes:
        with source.reading(file):
            data: Any = source.fs.cat_file(file.path, start=start, end=stop)
            return bytes(data)

    return TableFile(name=file.name, size=size, read_range=read_range)


def _footer_hash(file: TableFile) -> str:
    tail = file.read_tail(_TRAILER_BYTES)
    footer = file.read_tail(footer_bytes(tail)) if len(tail) == _TRAILER_BYTES else tail
    return hashlib.sha256(footer).hexdigest()


def _hash(file: TableFile) -> str:
    digest = hashlib.sha256()
    for start in range(0, file.size, _PIECE_BYTES):
        digest.update(file.read_range(start, min(file.size, start + _PIECE_BYTES)))
    return digest.hexdigest()
