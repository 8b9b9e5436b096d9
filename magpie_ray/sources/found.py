"""What a look at a source found, before it is an index."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from magpie_ray.inputs.source import Format
from magpie_ray.sources.shapes import Shape

Kind = Literal["build", "files"]

# The files of a source, in row order. size: in bytes. offsets: of JSON lines that are not compressed, the
# byte at which every json_lines.INDEXED_ROWS-th row starts.
FILES = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("offsets", pa.list_(pa.int64())),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """As in SourceIndex, which has the meanings of the fields."""

    kind: Kind
    base: str
    format: Format
    identity: str
    shape: Shape
    kept: pa.Schema
    columns: tuple[str, ...]
    files: pa.Table
    warnings: tuple[str, ...]


def files_table(
    names: Sequence[str],
    rows: Sequence[int],
    sizes: Sequence[int],
    offsets: Sequence[Sequence[int] | None] | None = None,
) -> pa.Table:
    """The table of files in row order, with the first row of each."""
    counts = np.asarray(rows, np.int64)
    places = pa.nulls(len(names), FILES.field("offsets").type) if offsets is None else offsets
    columns = [names, np.cumsum(counts) - counts, counts, np.asarray(sizes, np.int64), places]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, FILES, strict=True)], schema=FILES)
