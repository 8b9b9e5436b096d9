"""What the query of a selection took: rows of its tables, rows that each condition removed, rows kept.

Invariants: the record follows from the query and the sources alone, and is written before _SUCCESS.
"""

from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from magpie_ray.dataset.layout import SELECTION_KEY, read_record, to_json
from magpie_ray.storage.storage import Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRows:
    """A table of the query, and its rows."""

    name: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One of the conditions that WHERE joins by AND. sql: as DuckDB writes it.

    failed: the rows for which it does not hold, or is null. failed_alone: those of them for which all others
    hold.
    """

    sql: str
    failed: int
    failed_alone: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectionRecord:
    """tables: in the order of --from. kept: the rows of the selection.

    joined: rows before WHERE; met: rows for which all conditions hold. uncounted: why conditions could not be
    counted, then joined and met are None; "" where they were.
    """

    tables: tuple[TableRows, ...]
    kept: int
    joined: int | None = None
    met: int | None = None
    conditions: tuple[Condition, ...] = ()
    uncounted: str = ""


_RECORD = TypeAdapter(SelectionRecord)


def write_selection(storage: Storage, selection: SelectionRecord) -> None:
    """Record what a query took. StorageError."""
    storage.replace(SELECTION_KEY, to_json(asdict(selection)))


def read_selection(storage: Storage) -> SelectionRecord | None:
    """What the query of the selection at this output took; None where that is not recorded.

    CorruptBuildError names a damaged record.
    """
    return read_record(storage, SELECTION_KEY, _RECORD)
