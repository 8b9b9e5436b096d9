"""One pass over all inputs before a build begins: their number, their types, a digest, and what is wrong.

Invariants: memory does not grow with the number of inputs. The digest covers the used content alone: prompts,
weights and kept columns with their types, in order; not file names, other columns, compression or format.
"""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.column_types import typing_of
from magpie_ray.inputs.readers import BATCH_ROWS, RawBatch, Wanted, read_batches
from magpie_ray.inputs.source import Source

log = logging.getLogger(__name__)

# A line in the log for each.
_LOG_ROWS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """One file: its name, its inputs, and the SHA-256 (hex) of what is used of it."""

    name: str
    inputs: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InputSet:
    """The inputs of a build. Small, whatever their number: without `files` where it travels.

    number: of inputs. content: the digest of all of them. format: of the files. kept: the Arrow schema of the
    kept columns, serialised. first_prompt: of input 0. prompts: inputs that have one.
    """

    number: int
    content: str
    format: str
    kept: bytes
    first_prompt: str | None
    prompts: int
    files: tuple[FileDigest, ...] = field(default=(), repr=False)

    @property
    def kept_schema(self) -> pa.Schema:
        return schema_from(self.kept)


def scan(
    source: Source,
    wanted: Wanted,
    check: Callable[[RawBatch], None] = lambda batch: None,
    *,
    batch_rows: int = BATCH_ROWS,
) -> InputSet:
    """Read all inputs once. check: is given every batch, of at most batch_rows inputs.

    PreflightError for whatever is wrong with a file, a column or a row.
    """
    typings = [typing_of(source, name) for name in wanted.keep]
    files, number, prompts, total, first = list[FileDigest](), 0, 0, 0.0, None
    for file in source.files:
        digest, inputs = _Digest(wanted), 0
        for batch in read_batches(source, file, wanted, batch_rows=batch_rows):
            if batch.weights is not None:
                total += _checked_weights(batch, wanted)
            for typing, cells in zip(typings, batch.kept, strict=True):
                typing.note(batch, cells)
            check(batch)
            digest.update(batch)
            if number + inputs == 0:
                first = None if is_blank(batch.prompts[:1])[0].as_py() else batch.prompts[0].as_py()
            prompts += len(batch) - int(pc.sum(is_blank(batch.prompts)).as_py())
            inputs += len(batch)
        files.append(FileDigest(name=file.name, inputs=inputs, sha256=digest.result()))
        if (number + inputs) // _LOG_ROWS > number // _LOG_ROWS:
            log.info("%s: %d inputs were read so far", source.key, number + inputs)
        number += inputs
    if not number:
        names = ", ".join(file.name for file in source.files[:3])
        raise PreflightError(f"{source.key}: got {source.url}, which holds no rows ({names})")
    if not math.isfinite(total):
        raise PreflightError(
            f"{source.key}: the weights add up to more than a number can be: scale them down"
        )
    schema = pa.schema([as_stored(source.key, pa.field(typing.name, typing.type)) for typing in typings])
    whole = [[file.inputs, file.sha256] for file in files if file.inputs]
    kinds = [[column.name, str(column.type)] for column in schema]
    content = hashlib.sha256(json.dumps([kinds, whole]).encode()).hexdigest()
    return InputSet(
        number=number,
        content=content,
        format=source.format,
        kept=schema_to(schema),
        first_prompt=first,
        prompts=prompts,
        files=tuple(files),
    )


def is_blank(prompts: pa.Array) -> pa.Array:
    """Which prompts are none: null, or without a character that shows."""
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(prompts), ""), True)


def schema_to(schema: pa.Schema) -> bytes:
    """An Arrow schema as bytes."""
    return bytes(schema.serialize().to_pybytes())


def schema_from(data: bytes) -> pa.Schema:
    """The schema in the bytes of `schema_to`."""
    return pa.ipc.read_schema(pa.BufferReader(data))


def _checked_weights(batch: RawBatch, wanted: Wanted) -> float:
    """The sum of the weights. PreflightError for one that is no positive number."""
    assert batch.weights is not None
    weights = batch.weights.fill_null(math.nan).to_numpy(zero_copy_only=False)
    fine = np.isfinite(weights) & (weights > 0)
    if not fine.all():
        index = int(np.argmin(fine))
        value = batch.weights[index].as_py()
        raise PreflightError(
            f"{batch.place(index)}: {wanted.weight} is {value!r}, must be a number above 0: an input that is "
            "never to be drawn is left out of the file"
        )
    return float(weights.sum())


def as_stored(key: str, column: pa.Field) -> pa.Field:
    """The column as it comes back from Parquet.

    PreflightError for a type that Parquet can't hold, such as an object without fields.
    """
    section = key.partition(".")[0]
    if "dictionary<" in str(column.type):  # blocks have no room for dictionaries below the top level
        raise PreflightError(
            f"{section}.keep: the column {column.name} is {column.type}: write it with plain values, without "
            "dictionaries"
        )
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.schema([column]).empty_table(), sink)
        return pq.read_schema(pa.BufferReader(sink.getvalue())).field(0).with_metadata(None)
    except pa.ArrowException as exc:
        raise PreflightError(
            f"{section}.keep: the column {column.name} is {column.type}, which Parquet can't hold: {exc}"
        ) from exc


class _Digest:
    """A digest of used content that does not depend on how it is cut into batches."""

    def __init__(self, wanted: Wanted) -> None:
        # Of each column: where its texts end, and the texts.
        self._columns = [(hashlib.sha256(), hashlib.sha256()) for _ in range(2 + len(wanted.keep))]

    def update(self, batch: RawBatch) -> None:
        prompts = pc.if_else(is_blank(batch.prompts), pa.scalar(None, pa.string()), batch.prompts)
        weights = pa.nulls(len(batch), pa.string()) if batch.weights is None else as_texts(batch.weights)
        texts = [prompts, weights, *map(as_texts, batch.kept)]
        for (lengths, data), column in zip(self._columns, texts, strict=True):
            _update(lengths, data, column)

    def result(self) -> str:
        parts = [part.hexdigest() for column in self._columns for part in column]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _update(lengths: Any, data: Any, texts: pa.Array) -> None:
    sizes = pc.fill_null(pc.cast(pc.binary_length(texts), pa.int64()), -1)
    lengths.update(sizes.to_numpy(zero_copy_only=False).astype("<i8").tobytes())
    # Without what may lie under nulls.
    filled = pc.fill_null(texts, "").cast(pa.large_string())
    ends = np.frombuffer(filled.buffers()[1], np.int64)[filled.offset : filled.offset + len(filled) + 1]
    if len(filled) and ends[-1] > ends[0]:
        data.update(memoryview(filled.buffers()[2])[ends[0] : ends[-1]])


def as_texts(cells: pa.Array) -> pa.Array:
    """Each value as a text that tells it from all others of its type; null stays null."""
    try:
        return cells.cast(pa.large_string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        values: Sequence[Any] = cells.to_pylist()
        return pa.array([None if value is None else repr(value) for value in values], pa.large_string())


def changes(before: Sequence[FileDigest], now: Sequence[FileDigest]) -> Iterator[str]:
    """What differs between two scans of a source, one sentence a file."""
    old, new = {file.name: file for file in before}, {file.name: file for file in now}
    for name in old.keys() - new.keys():
        yield f"{name} is missing"
    for name in new.keys() - old.keys():
        yield f"{name} was added"
    for name in old.keys() & new.keys():
        if old[name] != new[name]:
            rows = f" (inputs: {old[name].inputs:,} before, {new[name].inputs:,} now)"
            yield f"{name} has changed{rows if old[name].inputs != new[name].inputs else ''}"
