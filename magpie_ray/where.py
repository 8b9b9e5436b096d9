"""Which rows are wanted: `key=value` conditions on columns, all of which must hold.

What always holds: a condition on a column that does not exist is refused. Values are YAML; of a list one item
that is equal is enough, and text is also compared as it was typed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from magpie_ray.config_source import read_source
from magpie_ray.errors import ConfigError
from magpie_ray.reader import Record, read_rows
from magpie_ray.storage import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One of them: the column, the value, and the value as it was typed."""

    column: str
    value: object
    text: str

    def holds(self, fields: Mapping[str, object]) -> bool:
        """Whether a row, or a reject, is as it says."""
        cell = fields[self.column]
        return any(map(self._equals, cell)) if isinstance(cell, list) else self._equals(cell)

    def _equals(self, cell: object) -> bool:
        if isinstance(cell, str):
            return cell in (self.value, self.text)
        # 1 == True in Python, but not in a table.
        return cell == self.value and isinstance(cell, bool) == isinstance(self.value, bool)


def parse_conditions(texts: Iterable[str], columns: Sequence[str]) -> tuple[Condition, ...]:
    """What --where was given. ConfigError for a column that is not there, or for what is no key=value."""
    return tuple(_parse(text, columns) for text in texts)


def _parse(text: str, columns: Sequence[str]) -> Condition:
    name, separator, typed = text.partition("=")
    name = name.strip()
    if not separator:
        raise ConfigError(f"--where: got {text!r}, must be COLUMN=VALUE, such as finish_reasons=length")
    if name not in columns:
        raise ConfigError(f"--where: there is no column {name!r}; there are {', '.join(columns)}")
    return Condition(column=name, value=read_source(None, [f"{name}={typed}"])[name], text=typed)


def select_rows(
    storage: Storage, conditions: Sequence[Condition], *, limit: int | None, row: int | None = None
) -> Iterator[Record]:
    """Committed rows for which all conditions hold, in order; one partition is in memory at a time.

    row: the first to be looked at. limit: so many; None with a `row`: that row or none.
    """
    first = row or 0
    rows: Iterator[Record] = read_rows(storage, first_row=first)
    if limit is None:
        rows = (found for found in islice(rows, 1) if found["row_id"] == first)
    return islice((found for found in rows if all(c.holds(found) for c in conditions)), limit)
