"""Rows of one data set for which an SQL condition holds, for `show` and `export`.

Invariants: rows come in order of row_id, in batches; the condition has the language and the limits of
`select`, over one table that is called rows.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from magpie_ray.curation.database import open_database
from magpie_ray.curation.tables import table_of_build
from magpie_ray.dataset.reader import Record
from magpie_ray.dataset.rejects import REJECT_FIELDS, Reject
from magpie_ray.errors import ConfigError
from magpie_ray.storage.storage import Storage

TABLE = "rows"
_OPTION = "--where"

_REJECTS_AT_ONCE = 2048
_REJECT_TYPES = {
    **dict.fromkeys(("row_id", "attempt", "turn", "input_id"), pa.int64()),
    "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
}

# Where the condition reads a table of its own, DuckDB may join in an order of its own.
_READS_A_TABLE = re.compile(r"\b(select|from|with|values)\b", re.IGNORECASE)


def rows_where(
    storage: Storage,
    condition: str,
    *,
    first_row: int = 0,
    last_row: int | None = None,
    limit: int | None = None,
) -> Iterator[Record]:
    """The committed rows first_row..last_row for which the condition holds, at most `limit`, in order.

    condition: an SQL expression over the columns, such as "reward > 0.5 AND attempt = 1". ConfigError with
    DuckDB's message and the columns for one that it refuses; BuildNotFoundError; StorageError.
    """
    table = table_of_build(TABLE, storage)
    if not table.files:
        return
    sql = f"SELECT * FROM {TABLE} WHERE (\n{condition}\n) AND row_id >= {first_row}"
    if last_row is not None:
        sql += f" AND row_id <= {last_row}"
    if _READS_A_TABLE.search(condition):
        sql += " ORDER BY row_id"
    if limit is not None:
        sql += f" LIMIT {limit}"
    with open_database([table], option=_OPTION) as database:
        for batch in database.query(sql).batches:
            yield from batch.to_pylist()


def rejects_where(rejects: Iterable[Reject], condition: str) -> Iterator[Reject]:
    """The rejects for which the condition holds, in order. It is asked for each reject by itself.

    ConfigError as for `rows_where`, and for a condition with a query inside, which would see a part of them.
    """
    if _READS_A_TABLE.search(condition):
        raise ConfigError(f"{_OPTION}: with --rejects a condition must do without SELECT, got {condition!r}")
    remaining = iter(rejects)
    with open_database([], option=_OPTION) as database:
        while some := list(islice(remaining, _REJECTS_AT_ONCE)):
            database.set_rows(TABLE, _as_table(some))
            kept = database.query(f"SELECT place FROM {TABLE} WHERE (\n{condition}\n)")
            for batch in kept.batches:
                yield from (some[place] for place in batch.column("place").to_pylist())


def _as_table(rejects: Sequence[Reject]) -> pa.Table:
    """The rejects with their places in the sequence. What is no Unicode stands there as its escape."""
    columns = {
        name: pa.array([_storable(reject[name]) for reject in rejects], _REJECT_TYPES.get(name, pa.string()))
        for name in REJECT_FIELDS
    }
    return pa.table({"place": pa.array(range(len(rejects)), pa.int64()), **columns})


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return {key: _storable(item) for key, item in value.items()} if isinstance(value, dict) else value
