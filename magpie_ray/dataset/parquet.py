"""The Parquet file of one partition, and the record in its footer.

Invariants: rows are in order of row_id. The footer's key-value metadata hold a PartitionRecord under
FOOTER_KEY, which says which rows of which build the file has.
"""

import hashlib
import json
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from magpie_ray.counters import Tally
from magpie_ray.dataset.layout import parse_record
from magpie_ray.errors import CorruptBuildError
from magpie_ray.types import PartitionRecord

FOOTER_KEY = b"magpie_ray"
# What pyarrow raises for a damaged file, including one whose column names are not UTF-8.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)

# The size that DuckDB, Spark and datasets prefer to read at once. Most files are smaller, with one group.
_ROW_GROUP_BYTES = 64 << 20
# On English text, zstd level 6 writes 15% fewer bytes than pyarrow's default, level 1, for 10 ns more a byte:
# 0.05% of a core at 5,000 tokens/s. Level 9 writes 2% fewer bytes than level 6, for 1.5 times the time.
_COMPRESSION_LEVELS = {"zstd": 6}
# A footer takes a few KB (schema, a few row groups, metadata), so one read of this size gets it.
FOOTER_READ_BYTES = 64 << 10
_TRAILER_BYTES = 8  # the footer's length and "PAR1" end a Parquet file

_OF_ANSWERS = ("further", "unanswered")  # 0 for all rows that no pass has made

_RECORD = TypeAdapter(PartitionRecord)


def to_parquet(
    table: pa.Table, *, compression: str, fingerprint: str, run: int, tally: Tally
) -> tuple[bytes, PartitionRecord]:
    """The file of one partition, and its record, which the footer holds.

    table: rows in the columns of the build, with contiguous ids in order. compression: as output.compression.
    """
    ids = table.column("row_id").to_pylist()
    record = PartitionRecord(
        start=ids[0],
        stop=ids[-1] + 1,
        fingerprint=fingerprint,
        run=run,
        rejected=tally.rejected,
        rejected_at=tally.rejected_at,
        further=tally.further,
        unanswered=tally.unanswered,
        user_tokens=tally.user_tokens,
        assistant_tokens=tally.assistant_tokens,
    )
    assert ids == list(range(record.start, record.stop)), "rows out of order"
    return partition_file(table, record, compression)


def partition_file(
    table: pa.Table, record: PartitionRecord, compression: str
) -> tuple[bytes, PartitionRecord]:
    """The file of a partition from its table, and the record with the file's size and hash.

    table: the rows of the partition, in order of row_id. compression: as output.compression.
    """
    footer = asdict(record)
    del footer["size"], footer["sha256"]  # unknown until the file is written
    footer = {name: value for name, value in footer.items() if value or name not in _OF_ANSWERS}
    data = parquet_bytes(
        table.replace_schema_metadata({FOOTER_KEY: json.dumps(footer, sort_keys=True)}), compression
    )
    return data, replace(record, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def parquet_bytes(table: pa.Table, compression: str) -> bytes:
    """A table as a file of a build. compression: as output.compression."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression=compression,
        compression_level=_COMPRESSION_LEVELS.get(compression),
        row_group_size=max(1, _ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes)),
        write_page_index=True,
        write_page_checksum=True,
        # Statistics of texts would hold whole texts: they make the footer long and help no reader.
        write_statistics=["row_id", "attempt"],
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def footer_bytes(tail: bytes) -> int:
    """The length of a file's footer, which its last 8 bytes tell."""
    return int.from_bytes(tail[-_TRAILER_BYTES:-4], "little") + _TRAILER_BYTES


def read_record(tail: bytes, *, key: str, size: int) -> PartitionRecord:
    """The record in a partition's footer. `tail`: at least the last `footer_bytes` of the file.

    CorruptBuildError when the file is not a whole Parquet file of ours, or contradicts its own name.
    """
    try:
        # The tail serves as a file: pyarrow reads nothing before the footer.
        metadata = pq.read_metadata(pa.BufferReader(tail))
        raw = (metadata.metadata or {}).get(FOOTER_KEY)
    except PARQUET_ERRORS as exc:
        raise CorruptBuildError(
            f"{key} is not a whole Parquet file ({exc}): move it away, then run the same command again"
        ) from exc
    if raw is None:
        raise CorruptBuildError(
            f"{key} was not written by magpie-ray: keep other files out of data/, or use another output.path"
        )
    record = replace(parse_record(raw, _RECORD, f"{key}: its footer"), size=size)
    if record.start >= record.stop or record.partition.key != key or metadata.num_rows != record.rows:
        raise CorruptBuildError(
            f"{key} says it holds rows {record.start}..{record.stop - 1} and has {metadata.num_rows} rows: "
            "it was renamed or damaged. Give it its own name back or move it away, then run the same command "
            "again"
        )
    return record
