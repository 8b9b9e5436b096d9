"""Which columns of a source are wanted, and some of its rows as they stand in a file.

Invariant: a batch has at most BATCH_ROWS rows, and about as many bytes as BATCH_BYTES.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.source import Source, SourceFile

BATCH_ROWS = 1024
BATCH_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Names of the columns that a build uses, in the source."""

    prompt: str
    keep: tuple[str, ...] = ()
    weight: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Each once."""
        return tuple(dict.fromkeys([self.prompt, *([self.weight] if self.weight else []), *self.keep]))


@dataclass(frozen=True, kw_only=True, slots=True)
class RawBatch:
    """Rows of one file.

    places: their lines or rows, as messages count them (unit). prompts: text, null for none. weights: as
    float64; None where none are asked for. kept: one array for each kept column: as it is in the file
    (Parquet), text (CSV), or JSON texts (JSON lines).
    """

    file: SourceFile
    unit: str
    places: Sequence[int]
    prompts: pa.Array
    weights: pa.Array | None
    kept: tuple[pa.Array, ...]

    def __len__(self) -> int:
        return len(self.places)

    def place(self, index: int) -> str:
        """Where the row stands, as the beginning of a message."""
        return f"{self.file.name}, {self.unit} {self.places[index]:,}"


def require_columns(source: Source, file: SourceFile, wanted: Wanted, there: Sequence[str]) -> None:
    """PreflightError for a wanted column that is not among those of the file."""
    section = source.key.partition(".")[0]
    keys = {f"{section}.system_prompt": wanted.prompt, f"{section}.weight": wanted.weight}
    for key, name in [*keys.items(), *((f"{section}.keep", name) for name in wanted.keep)]:
        if name is not None and name not in there:
            known = ", ".join(there) or "none"
            raise PreflightError(f"{key}: got {name}, but {file.name} has no such column; there are {known}")
