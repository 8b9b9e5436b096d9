"""Sources for tests: tables of rows as files, and what a pass would read of them."""

import bz2
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.sources.index import SourceIndex, look_at_source
from magpie_ray.sources.reader import SourceRow, read_all

Records = Sequence[Mapping[str, Any]]


def look(path: Path | str, *keep: str) -> SourceIndex:
    return look_at_source("source.path", str(path), {}, keep)


def rows_of(path: Path | str, *keep: str) -> list[SourceRow]:
    """All rows, by an index that has travelled."""
    return list(read_all(SourceIndex.from_bytes(look(path, *keep).to_bytes()), {}, keep))


def texts_of(path: Path | str) -> list[list[str]]:
    """The texts of each row's messages."""
    return [[text for _, text in row.messages] for row in rows_of(path)]


def write_source(path: Path, records: Records, *, row_group_size: int = 7, schema: Any = None) -> Path:
    """A file of these rows, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table = pa.Table.from_pylist(list(records), schema=schema)
        pq.write_table(table, path, row_group_size=row_group_size)
        return path
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    compress = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(data))
    return path


def instructions(*texts: str) -> Records:
    return [{"instruction": text} for text in texts]
