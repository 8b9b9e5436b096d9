"""Tables of inputs for tests, and what a build makes of them."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.inputs.batches import BATCH_ROWS, Wanted
from magpie_ray.inputs.copy import PART_INPUTS, CopyIndex, ensure_copy
from magpie_ray.inputs.scan import InputSet, scan
from magpie_ray.inputs.source import open_source
from magpie_ray.storage.storage import Storage

Records = Sequence[Mapping[str, Any]]


def write_table(path: Path, rows: Records) -> Path:
    """A file of these rows, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=7)
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def scanned(
    path: Path | str,
    *keep: str,
    prompt: str = "system_prompt",
    weight: str | None = None,
    batch_rows: int = BATCH_ROWS,
) -> InputSet:
    wanted = Wanted(prompt=prompt, keep=keep, weight=weight)
    return scan(open_source("inputs.path", str(path), {}), wanted, batch_rows=batch_rows)


def copied(
    storage: Storage,
    path: Path | str,
    *keep: str,
    prompt: str = "system_prompt",
    weight: str | None = None,
    part_inputs: int = PART_INPUTS,
    batch_rows: int = BATCH_ROWS,
) -> CopyIndex:
    """The index of a copy at the storage."""
    wanted = Wanted(prompt=prompt, keep=keep, weight=weight)
    source = open_source("inputs.path", str(path), {})
    return ensure_copy(
        storage, source, wanted, scan(source, wanted, batch_rows=batch_rows), part_inputs=part_inputs
    )
