"""`select`: what a query over data sets returns becomes a data set.

Invariants: the identity of a selection is its query and the content of its sources, so the same command finds
its work done, and another one is refused. Rows go from the query to the files in batches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from magpie_ray.curation.conditions import count_selection
from magpie_ray.curation.database import MEMORY, Database, open_database
from magpie_ray.curation.output import ROWS_PER_FILE, CuratedSet, check_apart, find_finished, write_rows
from magpie_ray.curation.selection import Selection, plan_selection
from magpie_ray.curation.tables import Table, find_table, identity_of
from magpie_ray.dataset.build_record import read_build
from magpie_ray.dataset.selection_record import SelectionRecord, read_selection, write_selection
from magpie_ray.errors import BuildMismatchError, ConfigError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

KIND = "select"
_OPTION = "--sql"
_SHOWN_ROWS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SelectSpec:
    """What the user asks for. sources: where each table lies, by its name. memory: DuckDB's, such as 4GB."""

    sources: Mapping[str, str]
    sql: str
    rows_per_file: int = ROWS_PER_FILE
    memory: str = MEMORY
    storage_options: Mapping[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """url: of the data set; rows: in it. is_new: whether any was written; otherwise they were there.

    taken: what the query took and removed, None where that is not recorded.
    """

    url: str
    rows: int
    is_new: bool
    taken: SelectionRecord | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DryRun:
    """What would be written. bytes: of the rows in memory, before compression. first: some rows.

    taken: what the query took and removed.
    """

    rows: int
    bytes: int
    schema: pa.Schema
    first: Sequence[Mapping[str, object]]
    taken: SelectionRecord


def read_query(text: str) -> str:
    """The query: the text itself, or the content of the file that it names. ConfigError for no such file."""
    if text.endswith(".sql"):
        try:
            text = Path(text).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"{_OPTION}: {text} can't be read as a file: {exc}") from exc
    if not text.strip():
        raise ConfigError(f"{_OPTION}: the query is empty: give one SELECT, or a file that ends in .sql")
    return text.strip()


def select(
    storage: Storage,
    spec: SelectSpec,
    *,
    on_rows: Callable[[int], None] = lambda rows: None,
    finishing: Callable[[Sequence[PartitionRecord]], object] = lambda records: None,
) -> Selected:
    """Write what the query returns as a data set, unless it is there already.

    on_rows: hears how many rows the query has returned so far. finishing: is called with the files before
    _SUCCESS is written. ConfigError for a query that DuckDB refuses; BuildMismatchError where the output
    holds another data set; PreflightError for sources that are missing or not complete; StorageError.
    """
    check_apart(storage, [(f"--from {name}", place) for name, place in spec.sources.items()])
    with _understood(spec) as (database, tables, selection, batches):
        wanted = _curated_set(spec, tables, selection)
        finished = find_finished(storage, wanted)
        if finished is not None:
            taken = read_selection(storage)
            return Selected(url=storage.url, rows=finished, is_new=False, taken=taken)
        _check_resumable(storage, wanted)

        def finish(records: Sequence[PartitionRecord]) -> None:
            kept = records[-1].stop
            write_selection(storage, count_selection(database, spec.sql, names, kept=kept))
            finishing(records)

        names = [table.name for table in tables]
        rows = write_rows(storage, wanted, _counted(batches, on_rows), finishing=finish)
    return Selected(url=storage.url, rows=rows, is_new=True, taken=read_selection(storage))


def dry_run(spec: SelectSpec, *, on_rows: Callable[[int], None] = lambda rows: None) -> DryRun:
    """Run the query to its end and write nothing."""
    rows, size, first = 0, 0, list[Mapping[str, object]]()
    with _understood(spec) as (database, tables, selection, batches):
        for batch in _counted(batches, on_rows):
            first += batch.slice(0, _SHOWN_ROWS - len(first)).to_pylist()
            rows, size = rows + batch.num_rows, size + batch.nbytes
        taken = count_selection(database, spec.sql, [table.name for table in tables], kept=rows)
    return DryRun(rows=rows, bytes=size, schema=selection.schema, first=first, taken=taken)


@contextmanager
def _understood(
    spec: SelectSpec,
) -> Iterator[tuple[Database, list[Table], Selection, Iterator[pa.RecordBatch]]]:
    """DuckDB, the sources, the columns of the data set, and its rows, which are read as the query runs."""
    tables = [find_table(name, url, spec.storage_options) for name, url in spec.sources.items()]
    database: Database
    with open_database(tables, option=_OPTION, memory=spec.memory) as database:
        result = database.query(spec.sql)
        selection = plan_selection(result.schema)
        yield database, tables, selection, selection.numbered(result.batches)


def _curated_set(spec: SelectSpec, tables: Sequence[Table], selection: Selection) -> CuratedSet:
    identities = {f"from.{table.name}": identity_of(table) for table in tables}
    return CuratedSet(
        kind=KIND,
        identity={"sql": spec.sql, **identities},
        schema=selection.schema,
        rows_per_file=spec.rows_per_file,
        config={
            "sql": spec.sql,
            "from": {table.name: table.url for table in tables},
            "memory": spec.memory,
        },
    )


def _check_resumable(storage: Storage, wanted: CuratedSet) -> None:
    """BuildMismatchError where rows were begun in a way that may have given them another order."""
    begun, ours = read_build(storage), wanted.record
    if begun is None:
        return
    was = (begun.versions.get("duckdb"), begun.config.get("memory"))
    now = (ours.versions.get("duckdb"), ours.config.get("memory"))
    if was != now:
        raise BuildMismatchError(
            f"{storage.url} was begun by DuckDB {was[0]} with --memory {was[1]}, and DuckDB {now[0]} with "
            f"--memory {now[1]} may return rows in another order: go on with the former, or delete "
            f"{storage.url} and start over"
        )


def _counted(batches: Iterator[pa.RecordBatch], on_rows: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        on_rows(rows)
        yield batch
