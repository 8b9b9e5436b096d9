"""A file of exported rows: JSON lines or Parquet, by its name, on a disk or in a store.

Invariants: the destination appears when it is complete, or not at all. Some thousand rows are in memory.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Protocol

import pyarrow as pa

from magpie_ray.errors import ConfigError, StorageError

STDOUT = "-"
_COMPRESSIONS = {"gz", "zst", "bz2", "lz4"}
# Kinds of files that JSON lines would be mistaken for.
_OTHER_KINDS = {"arrow", "avro", "csv", "feather", "orc", "tsv", "xls", "xlsx", "yaml", "yml", "zip"}
_ROWS_PER_GROUP = 10_000


class ExportFile(Protocol):
    """A file that takes rows, one after another."""

    def write(self, row: Mapping[str, object]) -> None: ...


@contextmanager
def open_export(destination: str, schema: pa.Schema, *, force: bool) -> Iterator[ExportFile]:
    """A file for rows of this schema.

    destination: a path or an fsspec URL. A name that ends with .parquet is written as Parquet, all others as
    JSON lines, whose extension (.gz, .zst, .bz2 or .lz4) sets the compression. "-" is standard output, in
    JSON lines. force: overwrite an existing file.

    Raises ConfigError when the name promises another kind of file or the file exists; StorageError.
    """
    is_parquet = _is_parquet(destination)
    with _opened(destination, force=force) as file:
        if is_parquet:
            with _ParquetRows(file, schema) as rows:
                yield rows
        else:
            yield _JsonLines(file)


class _JsonLines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, row: Mapping[str, object]) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


class _ParquetRows:
    def __init__(self, file: IO[bytes], schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        self._schema, self._waiting = schema, list[Mapping[str, object]]()
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")

    def write(self, row: Mapping[str, object]) -> None:
        self._waiting.append(row)
        if len(self._waiting) >= _ROWS_PER_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
            self._waiting.clear()

    def __enter__(self) -> "_ParquetRows":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _is_parquet(destination: str) -> bool:
    """Whether the name is a Parquet file's. ConfigError for the name of another kind of file."""
    name = destination.rpartition("/")[2].lower()
    stem, dot, compression = name.rpartition(".")
    inner = stem if dot and compression in _COMPRESSIONS else name
    kind = inner.rpartition(".")[2] if "." in inner else ""
    if kind in _OTHER_KINDS or (kind == "parquet" and inner != name):
        raise ConfigError(
            f"{destination}: is the name of a .{name.partition('.')[2]} file, which export does not write: "
            "name a .jsonl (also .jsonl.gz, .jsonl.zst) or a .parquet"
        )
    return kind == "parquet"


@contextmanager
def _opened(destination: str, *, force: bool) -> Iterator[IO[bytes]]:
    """A file to write to. The destination appears only after the last byte is written."""
    if destination == STDOUT:
        yield sys.stdout.buffer
        return
    import fsspec  # slow to import

    try:
        fs, path = fsspec.core.url_to_fs(destination)
        is_directory, exists = fs.isdir(path), not force and fs.exists(path)
    except (ValueError, ImportError, OSError) as exc:
        raise StorageError(f"{destination}: can't be written to: {exc}") from exc
    if is_directory:
        raise ConfigError(f"{destination}: is a directory; give the file to write, such as rows.jsonl")
    if exists:
        raise ConfigError(f"{destination}: exists already; --force overwrites it")
    is_local = isinstance(fs, fsspec.implementations.local.LocalFileSystem)
    if is_local and os.path.exists(path) and not os.path.isfile(path):
        raise ConfigError(
            f"{destination}: is a device or a pipe, which can't be replaced; - is standard output"
        )
    # A local file is written beside its destination and renamed; for a store, here, and uploaded whole.
    folder = os.path.dirname(path) or "." if is_local else None
    try:
        if folder is not None:
            os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".magpie-ray-export-", dir=folder) as temporary:
            written = os.path.join(temporary, os.path.basename(path))
            with pa.output_stream(written) as file:  # compresses by the extension
                yield file
            if is_local:
                os.replace(written, path)
            else:
                fs.put_file(written, path)
    except OSError as exc:
        raise StorageError(f"{destination}: can't be written to: {exc}") from exc
