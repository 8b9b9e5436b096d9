"""The Arrow schema of a build, and rows of one partition -> one Parquet object.

What always holds: the schema follows from the config alone, never from the data; rows stand in order of
row_id; the footer's key-value metadata under FOOTER_KEY says which rows of which build these are.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from magpie_ray.config.schema import Config
from magpie_ray.counters import Tally
from magpie_ray.dataset.layout import parse_record
from magpie_ray.errors import CorruptBuildError
from magpie_ray.types import PartitionRecord, Row

FOOTER_KEY = b"magpie_ray"
# What pyarrow raises over a damaged file, names in it that are no UTF-8 included.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError)

# About what DuckDB, Spark and datasets like to read at once; files are usually smaller: one group.
_ROW_GROUP_BYTES = 64 << 20
# Of English, zstd at level 6 leaves 15% less than at level 1, which is pyarrow's own, for 10 ns more a byte:
# 0.05% of a core at 5,000 tokens/s. Level 9 leaves 2% less than that, for half as much time again.
_COMPRESSION_LEVELS = {"zstd": 6}
# A footer of ours is a few KB (schema, a few row groups, the metadata): one read of this size gets it.
FOOTER_READ_BYTES = 64 << 10
_TRAILER_BYTES = 8  # the footer's length and "PAR1" end a Parquet file

_RECORD = TypeAdapter(PartitionRecord)

_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_TYPES = {
    "row_id": pa.int64(),
    "conversation": pa.list_(_MESSAGE),
    "instruction": pa.string(),
    "response": pa.string(),
    "reasoning": pa.list_(pa.string()),
    "system_prompt": pa.string(),
    "system_prompt_key": pa.string(),
    "sampling_key": pa.int32(),
    "model_name": pa.string(),
    "finish_reasons": pa.list_(pa.string()),
    "prompt_tokens": pa.list_(pa.int32()),
    "completion_tokens": pa.list_(pa.int32()),
    "attempt": pa.int32(),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFormat:
    """How rows become a file. `columns` in order; compression as pyarrow names it ("none" for none)."""

    columns: tuple[str, ...]
    compression: str
    include_system_prompt: bool
    model_name: str

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, without metadata."""
        return self.schema_of(self.columns)

    @staticmethod
    def schema_of(columns: Sequence[str]) -> pa.Schema:
        """The schema of these columns. Nullable only where a row may have nothing: its system prompt."""
        nullable = {"system_prompt", "system_prompt_key"}
        return pa.schema([pa.field(name, _TYPES[name], nullable=name in nullable) for name in columns])


def to_parquet(
    rows: Sequence[Row], *, table_format: TableFormat, fingerprint: str, run: int, tally: Tally
) -> tuple[bytes, PartitionRecord]:
    """One partition's file and what its footer says. `rows` are contiguous, in order."""
    record = PartitionRecord(
        start=rows[0].row_id,
        stop=rows[-1].row_id + 1,
        fingerprint=fingerprint,
        run=run,
        size=0,
        rejected=tally.rejected,
        user_tokens=tally.user_tokens,
        assistant_tokens=tally.assistant_tokens,
    )
    assert [row.row_id for row in rows] == list(range(record.start, record.stop)), "rows out of order"
    schema = table_format.schema.with_metadata({FOOTER_KEY: _footer(record)})
    columns = [[_value(name, row, table_format) for row in rows] for name in table_format.columns]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, schema, strict=True)]
    table = pa.Table.from_arrays(arrays, schema=schema)
    data = parquet_bytes(table, table_format)
    return data, replace(record, size=len(data))


def parquet_bytes(table: pa.Table, table_format: TableFormat) -> bytes:
    """A table as a file of the build."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression=table_format.compression,
        compression_level=_COMPRESSION_LEVELS.get(table_format.compression),
        row_group_size=max(1, _ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes)),
        write_page_index=True,
        write_page_checksum=True,
        # Statistics of texts would hold whole texts: they make the footer long and help no reader.
        write_statistics=["row_id", "attempt"],
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def footer_bytes(tail: bytes) -> int:
    """How many of a file's last bytes its footer takes, as its last 8 bytes say."""
    return int.from_bytes(tail[-_TRAILER_BYTES:-4], "little") + _TRAILER_BYTES


def read_record(tail: bytes, *, key: str, size: int) -> PartitionRecord:
    """What a partition's footer says. `tail`: at least its last `footer_bytes`.

    CorruptBuildError when it is no whole Parquet file of ours, or contradicts its own name.
    """
    try:
        # A reader wants a file that ends in this footer; what stands before it is never looked at.
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
            f"{key} says it holds rows {record.start}..{record.stop - 1} but has {metadata.num_rows} rows: "
            "it was renamed or damaged"
        )
    return record


def _footer(record: PartitionRecord) -> bytes:
    fields = asdict(record)
    del fields["size"]  # known only once the file is written
    return json.dumps(fields, sort_keys=True).encode()


def _value(name: str, row: Row, table_format: TableFormat) -> object:
    match name:
        case "row_id" | "attempt" | "sampling_key":
            return getattr(row, name)
        case "conversation":
            return list(_conversation(row, table_format.include_system_prompt))
        case "instruction":
            return row.messages[0].text
        case "response":
            return row.messages[1].text
        case "reasoning":
            return [m.reasoning for m in row.messages if m.role == "assistant"]
        case "system_prompt":
            return row.system_prompt.text if row.system_prompt else None
        case "system_prompt_key":
            return row.system_prompt.key if row.system_prompt else None
        case "model_name":
            return table_format.model_name
        case "finish_reasons":
            return [m.finish_reason for m in row.messages]
        case "prompt_tokens":
            return [m.prompt_tokens for m in row.messages]
        case "completion_tokens":
            return [m.completion_tokens for m in row.messages]
    raise AssertionError(f"no such column: {name}")


def _conversation(row: Row, include_system_prompt: bool) -> Iterable[dict[str, str]]:
    if include_system_prompt and row.system_prompt:
        yield {"role": "system", "content": row.system_prompt.text}
    for message in row.messages:
        yield {"role": message.role, "content": message.text}


def make_table_format(config: Config) -> TableFormat:
    """How the rows of a build become files."""
    return TableFormat(
        columns=config.columns(),
        compression=config.output.compression,
        include_system_prompt=config.include_system_prompt,
        model_name=config.model.name,
    )
