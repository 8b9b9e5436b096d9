"""DuckDB over tables: views that a query may read, and nothing else that it may do.

Invariants:

- A query reads the views alone. DuckDB opens no other file, loads no extension and keeps its configuration;
  what is not one SELECT is refused before it runs.
- The same query over the same tables returns the same rows in the same order, also without ORDER BY and with
  equal sort keys: DuckDB runs it in one thread, keeps the order of files and rows, and begins its random
  numbers with the same seed.
- Memory is bounded: rows come as record batches while the query runs, and what a join or a sort can't hold
  lies in a temporary folder, which is removed at the end.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from magpie_ray.curation.table_files import SCHEME, TableFiles
from magpie_ray.curation.tables import Table
from magpie_ray.errors import ConfigError, CorruptBuildError, PreflightError, QueryError

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"

_SEED = "SELECT setseed(0)"

# Rows of a batch. A batch of rows of 2 kB takes 16 MB.
_BATCH_ROWS = 8192
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "threads": 1,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "preserve_insertion_order": True,
    # Rows are read once. The cache would read files in pieces of 16 kB.
    "enable_external_file_cache": False,
}
# What a message of DuckDB begins with.
_NO_MEMORY = "Out of Memory Error"
_UNREADABLE = ("IO Error", "Invalid Input Error: No magic bytes", "TProtocolException")
_REFUSED = "Permission Error"
_INTERRUPTED = ("INTERRUPT Error", "Query interrupted")
# Where Ctrl-C met our code while DuckDB read a file, its message is the traceback.
_INTERRUPTED_READING = re.compile(r"^Traceback .*^KeyboardInterrupt\b", re.MULTILINE | re.DOTALL)
_READERS: Mapping[str, str] = {
    "Parquet": "read_parquet({files}{union})",
    # All lines decide the types, so that no line contradicts them later.
    "JSON lines": "read_json({files}, format='newline_delimited', sample_size=-1{union})",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """A query that was understood: its columns, before it has run. schema: their Arrow types, in order."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@contextmanager
def open_database(tables: Sequence[Table], *, option: str, memory: str = MEMORY) -> Iterator["Database"]:
    """DuckDB with a view for each table, locked.

    option: of the command line, such as --sql, for messages. memory: for DuckDB, such as 1GB. ConfigError
    where DuckDB is not installed or the memory is no size; CorruptBuildError for a file that it can't read;
    whatever a store raises.
    """
    try:
        import duckdb
    except ImportError as exc:
        raise ConfigError(f'{option}: needs DuckDB: `pip install "magpie-ray[curate]"`') from exc

    paths = {
        f"{table.name}/{number:06d}{_ending(table, file.name)}": file
        for table in tables
        for number, file in enumerate(table.files)
    }
    files = TableFiles(paths)
    with tempfile.TemporaryDirectory(prefix="magpie-ray-sql-") as folder:
        connection = duckdb.connect(":memory:", config=_CONFIG)
        database = Database(connection, files, option)
        try:
            connection.register_filesystem(files)
            with database.translating():
                connection.execute("SET TimeZone = 'UTC'")
                for table in tables:
                    database.add_view(table, [path for path in paths if path.startswith(f"{table.name}/")])
            _lock(connection, folder, memory)
            yield database
        finally:
            connection.close()


def _lock(connection: "duckdb.DuckDBPyConnection", folder: str, memory: str) -> None:
    import duckdb

    try:
        connection.execute(f"SET memory_limit = {_quoted(memory)}")
    except duckdb.Error as exc:
        raise ConfigError(f"--memory: got {memory!r}, must be a size such as 4GB") from exc
    connection.execute(f"SET temp_directory = {_quoted(folder)}")
    connection.execute(_SEED)
    connection.execute(f"SET allowed_directories = ['{SCHEME}://']")
    connection.execute("SET allow_persistent_secrets = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


class Database:
    """What a query can be put to. Made by `open_database`."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", files: TableFiles, option: str) -> None:
        self._connection, self._files, self._option = connection, files, option
        self.columns: dict[str, list[str]] = {}  # by view

    def add_view(self, table: Table, paths: Sequence[str]) -> None:
        """A view of the table's name over its files, numbered by row_id where they have none of their own."""
        if not paths:
            raise PreflightError(f"{table.url} has no rows")
        # The files of a data set have one schema; of others a file may lack a column.
        union = "" if table.record is not None else ", union_by_name=true"
        rows = _READERS[table.format].format(files=[f"{SCHEME}://{path}" for path in paths], union=union)
        names = list(self._connection.sql(f"SELECT * FROM {rows}").columns)
        row_id = ""
        if "row_id" not in (name.lower() for name in names):
            row_id, names = "row_number() OVER () - 1 AS row_id, ", ["row_id", *names]
        self._connection.execute(f'CREATE VIEW "{table.name}" AS SELECT {row_id}* FROM {rows}')
        self.columns[table.name] = names

    def set_rows(self, name: str, rows: pa.Table) -> None:
        """A view over rows in memory, in place of an earlier one of this name."""
        self._connection.register(name, rows)
        self.columns[name] = list(rows.column_names)

    def query(self, sql: str) -> Result:
        """The rows of one SELECT, which runs while they are read.

        ConfigError with DuckDB's message and the columns that there are; QueryError where memory or disk do
        not suffice.
        """
        with self.translating():
            relation = self._connection.sql(_one_select(sql, self._option))
            schema = relation.limit(0).to_arrow_table().schema
        return Result(schema=schema, batches=self._batches(relation))

    def first_row(self, sql: str) -> Sequence[Any]:
        """The values of the first row of one SELECT. Random numbers begin anew. Errors as of `query`."""
        with self.translating():
            self._connection.execute(_SEED)
            return self._connection.execute(_one_select(sql, self._option)).fetchone() or ()

    def syntax_tree(self, sql: str) -> Any:
        """The query as DuckDB's parser understands it, in JSON; None where JSON has no form for it."""
        tree = json.loads(self._converted("json_serialize_sql(?::VARCHAR)", sql))
        return None if tree["error"] else tree

    def sql_of(self, node: Mapping[str, Any]) -> str:
        """A SELECT of a syntax tree as SQL."""
        tree = {"error": False, "statements": [{"node": node, "named_param_map": []}]}
        return self._converted("json_deserialize_sql(?::JSON)", json.dumps(tree))

    def _converted(self, function: str, value: str) -> str:
        with self.translating():
            [text] = self._connection.execute(f"SELECT {function}", [value]).fetchone() or ("",)
        return str(text)

    def _batches(self, relation: "duckdb.DuckDBPyRelation") -> Iterator[pa.RecordBatch]:
        with self.translating():
            reader = relation.to_arrow_reader(_BATCH_ROWS)
        while True:
            with self.translating():
                try:
                    batch = reader.read_next_batch()
                except StopIteration:
                    return
            yield batch

    @contextmanager
    def translating(self) -> Iterator[None]:
        """What DuckDB raises, as one of our errors. An interrupted query is a KeyboardInterrupt."""
        import duckdb

        self._files.failure = None
        try:
            yield
        # While rows are read Arrow raises OSError with the message of DuckDB.
        except (duckdb.Error, OSError, RuntimeError, pa.ArrowException) as exc:
            if self._files.failure is not None:
                raise self._files.failure from exc
            raise self._translated(self._files.with_names(str(exc))) from exc

    def _translated(self, message: str) -> BaseException:
        if message.startswith(_INTERRUPTED) or _INTERRUPTED_READING.search(message):
            return KeyboardInterrupt()
        if message.startswith(_NO_MEMORY):
            reason = message.partition("\n")[0]
            return QueryError(
                f"{self._option}: {reason}. Give DuckDB more --memory, or TMPDIR a disk with more room"
            )
        if message.startswith(_UNREADABLE):
            return CorruptBuildError(f"{self._option}: a file can't be read: {message}")
        if message.startswith(_REFUSED):
            return ConfigError(
                f"{self._option}: {message}\nA query reads nothing but its tables: {', '.join(self.columns)}"
            )
        columns = "\n".join(f"  {name}: {', '.join(names)}" for name, names in self.columns.items())
        return ConfigError(
            f"{self._option}: {message}\nText stands in single quotes. The columns that there are:\n{columns}"
        )


def _one_select(sql: str, option: str) -> str:
    import duckdb

    statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        raise ConfigError(f"{option}: must be one SELECT, and there are {len(statements)} statements")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rpartition(".")[2]
        raise ConfigError(f"{option}: must be one SELECT, not {kind}: a query only reads")
    return str(statements[0].query)


def _ending(table: Table, name: str) -> str:
    if table.format == "Parquet":
        return ".parquet"
    return ".jsonl.gz" if name.lower().endswith(".gz") else ".jsonl"


def _quoted(text: str) -> str:
    return "'" + re.sub("'", "''", text) + "'"
