"""The vectors of a data set's rows, as a score pass writes them: a column of fixed-size lists of float32."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.curation.neighbours import Float32s
from magpie_ray.dataset import manifest
from magpie_ray.dataset.build_record import BuildRecord, require_build
from magpie_ray.dataset.parquet import PARQUET_ERRORS
from magpie_ray.errors import ConfigError, CorruptBuildError, PreflightError
from magpie_ray.sources.builds import build_at
from magpie_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """A column of vectors that was found and not yet read. row_id is 0..num_rows-1."""

    storage: Storage
    fingerprint: str
    column: str
    dimensions: int
    num_rows: int
    keys: tuple[str, ...]

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the vectors."""
        return {"fingerprint": self.fingerprint, "column": self.column, "rows": self.num_rows}

    def read(self) -> Float32s:
        """All vectors in order of row_id: float32 [rows, dimensions]. CorruptBuildError names a bad file."""
        values = np.empty((self.num_rows, self.dimensions), np.float32)
        at = 0
        for key in self.keys:
            try:
                table = pq.read_table(pa.BufferReader(self.storage.read(key)), columns=[self.column])
            except PARQUET_ERRORS as exc:
                raise CorruptBuildError(
                    f"{self.storage.display(key)} can't be read ({exc}): see `magpie-ray verify`"
                ) from exc
            column = table.column(0).combine_chunks()
            if column.null_count:
                raise CorruptBuildError(
                    f"{self.storage.display(key)}: {self.column} has rows without a vector: run the score "
                    "pass again"
                )
            values[at : at + len(column)] = column.flatten().to_numpy().reshape(len(column), -1)
            at += len(column)
        return values


def find_embeddings(option: str, url: str, options: Mapping[str, object], column: str | None) -> Embeddings:
    """The vectors at a path. option: of the command line, for messages. column: None where there is only one.

    ConfigError where there is no such column; PreflightError where the data set is missing or not complete.
    """
    storage = build_at(option, url, options)
    if storage is None:
        raise PreflightError(f"{option}: {url} is no data set of magpie-ray: give the output of `score`")
    record = require_build(storage)
    if not manifest.is_marked_complete(storage):
        raise PreflightError(f"{option}: {storage.url} is not complete: let its command end first")
    records = manifest.read_committed(storage, record)
    name = _column(option, storage, record, column)
    return Embeddings(
        storage=storage,
        fingerprint=record.fingerprint,
        column=name,
        dimensions=record.schema.field(name).type.list_size,
        num_rows=sum(part.rows for part in records),
        keys=tuple(part.partition.key for part in records),
    )


def _column(option: str, storage: Storage, record: BuildRecord, wanted: str | None) -> str:
    vectors = [
        field.name
        for field in record.schema
        if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float32()
    ]
    if wanted is not None and wanted not in vectors:
        raise ConfigError(
            f"--embedding-column: {storage.url} has no column {wanted} of vectors (fixed-size lists of "
            f"float32); it has {', '.join(vectors) or 'none'}"
        )
    if wanted is None and len(vectors) != 1:
        raise ConfigError(
            f"{option}: {storage.url} has {', '.join(vectors) or 'no column'} of vectors (fixed-size lists "
            "of float32), and one is needed: "
            + ("name one by --embedding-column" if vectors else "give the output of `score` with `embed`")
        )
    return wanted or vectors[0]
