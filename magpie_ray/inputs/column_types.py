"""The type of a kept column over all files of a source, and its raw cells as values of that type.

Parquet has types. JSON values have types, and those of different rows are merged. CSV has texts alone.
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from magpie_ray.errors import PreflightError
from magpie_ray.inputs.batches import RawBatch
from magpie_ray.inputs.source import Source


class Typing:
    """Finds the type of a kept column over all files, and gives raw cells that type."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._type: pa.DataType = pa.null()
        self._first = ""

    def note(self, batch: RawBatch, cells: pa.Array) -> None:
        """Cells of the column. PreflightError when they do not go with earlier ones."""
        merged = self._merged(cells)
        if merged is None:
            raise PreflightError(
                f"{batch.file.name}: the column {self.name} is {self._kind(cells)}, and {self._type} in "
                f"{self._first}: a column has one type in all files"
            )
        if not pa.types.is_null(cells.type) and not self._first:
            self._first = batch.file.name
        self._type = merged

    def _kind(self, cells: pa.Array) -> pa.DataType:
        return cells.type

    def _merged(self, cells: pa.Array) -> pa.DataType | None:
        kind = self._kind(cells)
        if pa.types.is_null(kind):
            return self._type
        return kind if pa.types.is_null(self._type) or kind == self._type else None

    @property
    def type(self) -> pa.DataType:
        """Text where all cells are null."""
        return pa.string() if pa.types.is_null(self._type) else self._type

    def convert(self, cells: pa.Array, kind: pa.DataType) -> pa.Array:
        """Cells as values of the type that was found."""
        return cells.cast(kind)


class JsonTyping(Typing):
    """Whole numbers and fractions make fractions; objects get the fields of all."""

    _wide = False

    def _kind(self, cells: pa.Array) -> pa.DataType:
        values = _parsed(cells)
        self._wide = self._wide or any(map(_is_wide, values))
        return pa.array(values).type

    def _merged(self, cells: pa.Array) -> pa.DataType | None:
        try:
            schemas = [pa.schema([("x", kind)]) for kind in (self._type, self._kind(cells))]
            return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
        except (pa.ArrowException, OverflowError, ValueError):
            return None

    def note(self, batch: RawBatch, cells: pa.Array) -> None:
        try:
            super().note(batch, cells)
            if self._wide and "double" in str(self._type):
                raise ValueError("whole numbers beyond 2**53 beside fractions: write them as texts")
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as exc:
            raise PreflightError(
                f"{batch.place(0)} and later: the values of {self.name} have no type in common ({exc})"
            ) from exc

    def convert(self, cells: pa.Array, kind: pa.DataType) -> pa.Array:
        return pa.array(_parsed(cells), kind)


def _is_wide(value: object) -> bool:
    """Whether a whole number in the value has no fraction that is equal to it."""
    if isinstance(value, dict):
        return any(map(_is_wide, value.values()))
    if isinstance(value, list):
        return any(map(_is_wide, value))
    return isinstance(value, int) and abs(value) > 2**53


def _parsed(cells: pa.Array) -> list[Any]:
    return [None if text is None else json.loads(text) for text in cells.to_pylist()]


class CsvTyping(Typing):
    """Whole numbers, fractions or true/false where all cells are written as such; else text.

    A number that would lose something, as the zeros of 007 and of 1.10 would, makes the column text.
    """

    _FORMS = (
        (pa.int64(), r"^(0|-?[1-9][0-9]{0,17})$"),
        (pa.float64(), r"^-?(0|[1-9][0-9]{0,8})([.](0|[0-9]{0,5}[1-9]))?$"),
        (pa.bool_(), r"^(true|false|True|False|TRUE|FALSE)$"),
    )

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._possible = dict(self._FORMS)
        self._any = False

    def note(self, batch: RawBatch, cells: pa.Array) -> None:
        there = cells.drop_null()
        self._any |= len(there) > 0
        for kind, form in list(self._possible.items()):
            if not pc.all(pc.match_substring_regex(there, form), min_count=0).as_py():
                del self._possible[kind]

    @property
    def type(self) -> pa.DataType:
        return next(iter(self._possible), pa.string()) if self._any else pa.string()


_TYPINGS: Mapping[str, type[Typing]] = {"Parquet": Typing, "CSV": CsvTyping, "JSON lines": JsonTyping}


def typing_of(source: Source, name: str) -> Typing:
    """The typing of one column of the source."""
    return _TYPINGS[source.format](name)
