"""The used columns of the inputs, copied into the build: small compressed blocks that are read by range.

A part is one object: the blocks of some thousand inputs, then an index with 24 bytes for each block.
blocks.json lists the parts. Invariants: a part is named by its content, so that two drivers that copy at once
write the same objects, or others that the first blocks.json does not name. It never lists a copy that lacks
the digest of the build's inputs.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, TypeAdapter

from magpie_ray.dataset import layout
from magpie_ray.errors import AlreadyExistsError, PreflightError
from magpie_ray.inputs.batches import RawBatch, Wanted
from magpie_ray.inputs.column_types import Typing, typing_of
from magpie_ray.inputs.scan import FileDigest, InputSet, is_blank, scan, schema_from, schema_to
from magpie_ray.inputs.source import Source
from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)

# Inputs of a block: what is read for a row that is drawn at random. 64 prompts of 200 tokens are 25 KB.
BLOCK_INPUTS = 64
# A part is written when it has so many inputs, or bytes before compression.
PART_INPUTS = 1 << 16
_PART_BYTES = 32 << 20
_CODEC = "zstd"

PROMPT, WEIGHT = "system_prompt", "weight of the input"
INDEX = np.dtype([("at", "<u8"), ("bytes", "<u4"), ("raw", "<u4"), ("weight", "<f8")])


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One object of the copy. index_at: where its index begins. weight: of all its inputs together."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    key: str
    inputs: int
    blocks: int
    index_at: int
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyIndex:
    """The content of blocks.json. content: the digest of the inputs. kept: the schema of the kept columns."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    content: str
    inputs: int
    block_inputs: int
    weighted: bool
    kept: str
    parts: tuple[Part, ...]

    @property
    def schema(self) -> pa.Schema:
        """Of a block."""
        weight = [pa.field(WEIGHT, pa.float64())] if self.weighted else []
        kept = schema_from(base64.b64decode(self.kept))
        return pa.schema([pa.field(PROMPT, pa.string()), *weight, *kept])


_FILES = TypeAdapter(tuple[FileDigest, ...])
_INDEX = TypeAdapter(CopyIndex)


def read_files(storage: Storage) -> tuple[FileDigest, ...] | None:
    """The files that a build's inputs came from; None where they are not recorded."""
    return layout.read_record(storage, layout.INPUT_FILES_KEY, _FILES)


def read_index(storage: Storage) -> CopyIndex | None:
    """The index of a build's copy; None where there is none yet."""
    return layout.read_record(storage, layout.INPUT_BLOCKS_KEY, _INDEX)


def ensure_copy(
    storage: Storage,
    source: Source,
    wanted: Wanted,
    inputs: InputSet,
    *,
    part_inputs: int = PART_INPUTS,
    check: Callable[[RawBatch], None] = lambda batch: None,
) -> CopyIndex:
    """Copy the inputs unless they are there. PreflightError when the source has changed since its scan.

    check: is given every batch before it is copied.
    """
    existing = read_index(storage)
    if existing is None:
        log.info("copying %d inputs to %s", inputs.number, storage.display(layout.INPUTS_PREFIX))
        with suppress(AlreadyExistsError):
            storage.create(layout.INPUT_FILES_KEY, _FILES.dump_json(inputs.files, indent=1))
        made = _copy(source, wanted, inputs, _PartWriter(storage, part_inputs), check)
        try:
            storage.create(layout.INPUT_BLOCKS_KEY, layout.to_json(asdict(made)))
            return made
        except AlreadyExistsError:
            existing = read_index(storage)
            assert existing is not None, "blocks.json is never deleted"
    if existing.content != inputs.content:
        raise PreflightError(
            f"{storage.display(layout.INPUT_BLOCKS_KEY)} is of other inputs than the build has. "
            "Delete it, and the same command copies the inputs again"
        )
    return existing


def _copy(
    source: Source,
    wanted: Wanted,
    inputs: InputSet,
    writer: "_PartWriter",
    check: Callable[[RawBatch], None],
) -> CopyIndex:
    schema = inputs.kept_schema
    typings = [typing_of(source, name) for name in wanted.keep]
    # The scan notices what has changed since the first one.
    rows = Rows()

    def take(raw: RawBatch) -> None:
        check(raw)
        for block in rows.add(typed(raw, typings, schema)):
            writer.add(block)

    try:
        again = scan(source, wanted, check=take)
    except pa.ArrowException as exc:  # a value that its column's type can't hold any more
        raise _changed(source) from exc
    if again.content != inputs.content:
        raise _changed(source)
    for block in rows.rest():
        writer.add(block)
    return CopyIndex(
        content=inputs.content,
        inputs=inputs.number,
        block_inputs=BLOCK_INPUTS,
        weighted=wanted.weight is not None,
        kept=base64.b64encode(schema_to(schema)).decode(),
        parts=writer.finish(),
    )


def _changed(source: Source) -> PreflightError:
    return PreflightError(
        f"{source.key}: {source.url} has changed since this command began to read it: run it again once "
        "nobody writes there"
    )


def typed(raw: RawBatch, typings: Sequence[Typing], schema: pa.Schema) -> pa.RecordBatch:
    """The used columns of a batch with their types; prompts without a character that shows are null."""
    prompts = pc.if_else(is_blank(raw.prompts), pa.scalar(None, pa.string()), raw.prompts)
    arrays, fields = [prompts], [pa.field(PROMPT, pa.string())]
    if raw.weights is not None:
        arrays.append(raw.weights)
        fields.append(pa.field(WEIGHT, pa.float64()))
    for typing, cells, field in zip(typings, raw.kept, schema, strict=True):
        arrays.append(typing.convert(cells, field.type))
        fields.append(field)
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


class Rows:
    """Cuts batches anew, into blocks."""

    def __init__(self) -> None:
        self._waiting: list[pa.RecordBatch] = []
        self._number = 0

    def add(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The blocks that are full now."""
        self._waiting.append(batch)
        self._number += len(batch)
        if self._number >= BLOCK_INPUTS:
            together = pa.concat_batches(self._waiting)
            whole = self._number // BLOCK_INPUTS * BLOCK_INPUTS
            for start in range(0, whole, BLOCK_INPUTS):
                yield together.slice(start, BLOCK_INPUTS)
            self._waiting = [together.slice(whole)]
            self._number -= whole

    def rest(self) -> Iterator[pa.RecordBatch]:
        """The last block, which may be shorter."""
        if self._number:
            yield pa.concat_batches(self._waiting)


class _PartWriter:
    def __init__(self, storage: Storage, part_inputs: int) -> None:
        self._storage, self._part_inputs = storage, part_inputs
        self._parts: list[Part] = []
        self._first = 0
        self._begin()

    def _begin(self) -> None:
        self._data = bytearray()
        self._index: list[tuple[int, int, int, float]] = []
        self._inputs = self._raw = 0

    def add(self, block: pa.RecordBatch) -> None:
        message = block.serialize()
        data = pa.compress(message, codec=_CODEC, asbytes=True)
        weighted = WEIGHT in block.schema.names
        weight = float(pc.sum(block.column(1)).as_py()) if weighted else float(len(block))
        self._index.append((len(self._data), len(data), message.size, weight))
        self._data += data
        self._inputs += len(block)
        self._raw += message.size
        if self._inputs >= self._part_inputs or self._raw >= _PART_BYTES:
            self._end()

    def _end(self) -> None:
        index = np.array(self._index, INDEX)
        index_at = len(self._data)
        data = bytes(self._data) + index.tobytes()
        key = layout.input_part_key(self._first, hashlib.sha256(data).hexdigest())
        with suppress(AlreadyExistsError):
            self._storage.create(key, data)
        weight = float(index["weight"].sum())
        self._parts.append(
            Part(key=key, inputs=self._inputs, blocks=len(index), index_at=index_at, weight=weight)
        )
        self._first += self._inputs
        self._begin()

    def finish(self) -> tuple[Part, ...]:
        if self._inputs:
            self._end()
        return tuple(self._parts)


def read_block(data: bytes, raw: int, schema: pa.Schema) -> pa.RecordBatch:
    """A block from its bytes in a part. raw: its bytes before compression."""
    message = pa.decompress(data, decompressed_size=raw, codec=_CODEC)
    return pa.ipc.read_record_batch(message, schema)
