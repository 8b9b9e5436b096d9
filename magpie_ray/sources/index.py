"""Where the rows of a source lie: looked up once, before a pass starts, and then given to its workers.

Invariants: an index is small, and has no content of rows and no credential. Rows keep their numbers as a
source grows: what an earlier index has stands unchanged at the beginning of a later one.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from magpie_ray.dataset.layout import JSON_OBJECT, parse_record
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import BuildMismatchError, CorruptBuildError
from magpie_ray.inputs.scan import schema_from, schema_to
from magpie_ray.inputs.source import Format
from magpie_ray.sources.builds import build_at, look_at_build
from magpie_ray.sources.files import look_at_files
from magpie_ray.sources.found import FILES, Kind
from magpie_ray.sources.shapes import Shape

_VERSION = 1
_METADATA = b"magpie_ray_source"
_SHAPE = TypeAdapter(Shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceIndex:
    """Where the rows of a source lie. Small enough to travel: 1 MB for 100,000 files.

    kind: build: a data set of magpie_ray (generate, a pass, select); files: files of others.
    identity: of a build its fingerprint; of files a digest (SHA-256, hex) of what stays while they grow:
    format, shape, kept columns with their types. Not of the content.
    num_rows: rows 0..num_rows-1 are there; of a build with a hole those before it.
    shape: how a row's messages stand. kept: the Arrow schema of the kept columns, serialised.
    columns: the names of all columns, for messages; of JSON lines those of any row.
    base: what the names of files follow on their file system. files: a table as found.FILES, in row order.
    warnings: sentences for the log and for plan.
    """

    url: str
    kind: Kind
    identity: str
    num_rows: int
    shape: Shape
    kept: bytes = field(repr=False)
    columns: tuple[str, ...]
    base: str
    format: Format
    files: pa.Table = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def kept_schema(self) -> pa.Schema:
        return schema_from(self.kept)

    def to_bytes(self) -> bytes:
        """The index as one small Parquet object, which a pass keeps in its output for its workers."""
        fields = {
            "version": _VERSION,
            "url": self.url,
            "kind": self.kind,
            "identity": self.identity,
            "num_rows": self.num_rows,
            "shape": asdict(self.shape),
            "kept": base64.b64encode(self.kept).decode(),
            "columns": self.columns,
            "base": self.base,
            "format": self.format,
            "warnings": self.warnings,
        }
        sink = pa.BufferOutputStream()
        # Neighbouring names and numbers are much alike.
        numbers = dict.fromkeys(("first_row", "rows", "size", "offsets.list.element"), "DELTA_BINARY_PACKED")
        pq.write_table(
            self.files.replace_schema_metadata({_METADATA: json.dumps(fields)}),
            sink,
            compression="zstd",
            use_dictionary=False,
            column_encoding={"name": "DELTA_BYTE_ARRAY", **numbers},
        )
        return bytes(sink.getvalue().to_pybytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """The index that `to_bytes` wrote. CorruptBuildError for other bytes, or those of a later version."""
        name = "the index of the source"
        try:
            table = pq.read_table(pa.BufferReader(data), use_threads=False)
        except PARQUET_ERRORS as exc:
            raise CorruptBuildError(f"{name} is damaged ({exc}): run the same command again") from exc
        raw = (table.schema.metadata or {}).get(_METADATA)
        if raw is None or not table.schema.equals(FILES):
            raise CorruptBuildError(f"{name} is damaged or foreign: run the same command again")
        fields = parse_record(raw, JSON_OBJECT, name)
        if fields.pop("version") != _VERSION:
            raise CorruptBuildError(f"{name} was written by another version of magpie-ray: use that version")
        return cls(
            **{
                **fields,
                "shape": _SHAPE.validate_python(fields["shape"]),
                "kept": base64.b64decode(fields["kept"]),
                "columns": tuple(fields["columns"]),
                "warnings": tuple(fields["warnings"]),
                "files": table.replace_schema_metadata(None),
            }
        )

    def check_grown_from(self, before: "SourceIndex") -> None:
        """Whether the source only has more rows than before, behind those that it had.

        BuildMismatchError names the first file that is missing or differs in name, rows or size.
        """
        if (self.kind, self.identity) != (before.kind, before.identity):
            raise BuildMismatchError(
                f"{self.url} is another source than the one that this output was begun with ({before.url}; "
                f"{_identity_text(before)} before, {_identity_text(self)} now): set source back, or choose "
                "another output.path"
            )
        if (number := self._first_difference(before)) is None:
            return
        mine, theirs = self._file(number), before._file(number)
        raise BuildMismatchError(
            f"{self.url} has changed: {theirs} before, now {mine} in its place. Rows keep their numbers only "
            "where a source gets files whose names come behind those that it has: restore it, or choose "
            "another output.path"
        )

    def _first_difference(self, before: "SourceIndex") -> int | None:
        """The number of the first file of the earlier index that is not the same here."""
        many = min(len(self.files), len(before.files))
        same = np.ones(many, bool)
        for name in ("name", "rows", "size"):
            mine, theirs = (one.files[name][:many].to_numpy() for one in (self, before))
            same &= mine == theirs
        if not same.all():
            return int(np.argmin(same))
        return many if many < len(before.files) else None

    def _file(self, number: int) -> str:
        if number >= len(self.files):
            return "no file"
        name, rows, size = (self.files[column][number].as_py() for column in ("name", "rows", "size"))
        return f"{name} ({rows:,} rows, {size:,} bytes)"


def look_at_source(key: str, url: str, options: Mapping[str, object], keep: Sequence[str]) -> SourceIndex:
    """Find the rows of a source. key: of the config, for messages, such as source.path.

    url: a path, folder or glob, or any URL of fsspec. options: of its file system. keep: columns that go
    along. A build's manifest and a listing are read; of Parquet of others footers and first rows, several
    files at once; JSON lines wholly. PreflightError (SourceError for a file, column or row) says what is
    wrong, with the remedy; CorruptBuildError names files that do not belong to the build.
    """
    storage = build_at(key, url, options)
    found = look_at_build(key, storage, options, keep) if storage else look_at_files(key, url, options, keep)
    return SourceIndex(
        url=storage.url if storage else url,
        kind=found.kind,
        identity=found.identity,
        num_rows=int(np.sum(found.files["rows"].to_numpy())),
        shape=found.shape,
        kept=schema_to(found.kept),
        columns=found.columns,
        base=found.base,
        format=found.format,
        files=found.files,
        warnings=found.warnings,
    )


def _identity_text(index: SourceIndex) -> str:
    if index.kind == "build":
        return f"the build {index.identity[:12]}…"
    kept = ", ".join(f"{field.name}: {field.type}" for field in index.kept_schema)
    return f"{index.format} with {index.shape.column}" + (f" and {kept}" if kept else "")
