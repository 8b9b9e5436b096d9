"""The columns of the rows that the pass `score` makes.

Invariants: they follow from the config, from whether rows of the source have several responses, and from the
size of the model's vectors; a value that a row lacks is null.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from magpie_ray.config.score import ScoreConfig
from magpie_ray.config.scoring import EmbedColumn, kind_of, names_of
from magpie_ray.dataset.columns import COLUMNS, NO_COLUMNS
from magpie_ray.types import ScoredRow


def score_schema(
    config: ScoreConfig, *, several: bool, vector_size: int | None, kept: pa.Schema = NO_COLUMNS
) -> pa.Schema:
    """The Arrow schema of the pass. kept: of the columns that it keeps of the source.

    several: rows of the source have `responses`. vector_size: of an embedding model; None for others.
    """
    row_id = COLUMNS["row_id"]
    fields = [pa.field(row_id.name, row_id.type, nullable=False)]
    for name, column in config.columns.items():
        if config.kind == "choice":
            kinds = [pa.string(), pa.float64()]
        elif config.kind == "reward":
            kinds = [pa.list_(pa.float64()) if several else pa.float64()]
        else:
            assert isinstance(column, EmbedColumn)
            kinds = [pa.list_(pa.float32(), column.dimensions or vector_size)]
        fields += map(pa.field, names_of(name, config.kind), kinds)
    return pa.schema([*fields, *(kept.field(name).with_metadata(None) for name in config.source.keep)])


def score_table(rows: Sequence[ScoredRow], schema: pa.Schema, kept: pa.Schema = NO_COLUMNS) -> pa.Table:
    """Rows in the columns of the pass; each has its kept cells."""
    cells = pa.concat_batches([row.kept for row in rows]) if kept.names else None
    arrays = []
    for field in schema:
        if field.name == "row_id":
            arrays.append(pa.array([row.row_id for row in rows], field.type))
        elif cells is not None and field.name in kept.names:
            arrays.append(cells.column(field.name))
        elif pa.types.is_fixed_size_list(field.type):
            arrays.append(_vectors([row.values[field.name] for row in rows], field.type))
        else:
            arrays.append(pa.array([row.values[field.name] for row in rows], field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def score_meanings(columns: Mapping[str, Any]) -> dict[str, str]:
    """What each column of the rows holds, by name. columns: those of a config, as build.json records them."""
    meanings = dict[str, str]()
    for name, column in columns.items():
        kind = kind_of(column)
        if kind == "choice":
            labels = ", ".join(f"`{label}`" for label in column["choice"])
            texts = [
                f"the label that the model most probably gives: {labels}",
                f"how probable `{name}` is",
            ]
        elif kind == "reward":
            texts = ["the logit of the reward model for the dialogue, or one for each response"]
        else:
            texts = [f"the vector of the {column['embed']}, of length one"]
        meanings |= zip(names_of(name, kind), texts, strict=True)
    return meanings


def _vectors(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Arrays of float32 as fixed-size lists, which pa.array would make number by number."""
    size = kind.list_size
    empty = np.zeros(size, np.float32)
    flat = np.concatenate([empty if value is None else value for value in values])
    return pa.FixedSizeListArray.from_arrays(
        pa.array(flat, pa.float32()),
        type=kind,
        mask=pa.array([value is None for value in values]),
    )
