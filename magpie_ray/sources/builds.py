"""A look at a data set of magpie_ray: what it has committed.

Invariant: the manifest and a listing tell of all files; of these one footer is read, for the columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa

from magpie_ray.config.output_path import LATEST
from magpie_ray.dataset import layout, schedule
from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.layout import BUILD_KEY
from magpie_ray.dataset.manifest import is_marked_complete, read_committed
from magpie_ray.errors import BuildNotFoundError, PreflightError, SourceError, StorageError
from magpie_ray.inputs.readers import plain_type
from magpie_ray.inputs.source import of_section
from magpie_ray.sources.found import Found, files_table
from magpie_ray.sources.parquet_rows import open_parquet, reading
from magpie_ray.sources.ranges import FileRanges, file_system
from magpie_ray.sources.shapes import check_kept, shape_of_schema
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import PartitionRecord


def build_at(key: str, url: str, options: Mapping[str, object]) -> Storage | None:
    """The data set of magpie_ray at a URL, also one that a `latest` stands for; None where there is none.

    PreflightError when the place can't be read, or holds the builds of a schedule.
    """
    if "::" in url or "?" in url:
        return None  # of a chain or a glob
    with _of_source(key):
        followed = schedule.follow_latest(url, options, retry_seconds=READ_SECONDS)
        storage = Storage(followed, options, retry_seconds=READ_SECONDS)
        try:
            if storage.exists(BUILD_KEY):
                return storage
        except StorageError as exc:
            if isinstance(exc.__cause__, NotADirectoryError):
                return None  # a file
            raise
        try:
            if storage.exists(layout.latest_key(LATEST)):
                require_build(storage)
        except BuildNotFoundError as exc:
            raise PreflightError(f"{key}: {exc}") from exc
    return None


def look_at_build(key: str, storage: Storage, options: Mapping[str, object], keep: Sequence[str]) -> Found:
    """What the build has committed, up to its first hole.

    PreflightError when there are no rows, or a column that is wanted is missing; CorruptBuildError names
    files that do not belong to the build.
    """
    section = key.partition(".")[0]
    with _of_source(key):
        build = require_build(storage)
        records = read_committed(storage, build)
        is_complete = is_marked_complete(storage)
    count, num_rows = _without_hole(records)
    if not num_rows:
        raise PreflightError(f"{key}: got {storage.url}, which holds no rows from row 0 on yet: run it first")
    warnings = []
    if count < len(records):
        begin = records[count].start
        warnings.append(
            f"{storage.url} lacks the rows {num_rows:,} to {begin - 1:,}: the rows before them are used. Run "
            "the job that makes it again, then this command"
        )
    elif not is_complete:
        warnings.append(
            f"{storage.url} is not complete: the {num_rows:,} rows that it has are used. The same command "
            "does the others once they are there"
        )
    first, base = records[0], file_system(storage.url, options)[1].rstrip("/") + "/"
    schema = _schema(FileRanges(storage.url, base, options, key=key), first)
    name = first.partition.key
    check_kept(keep, schema.names, section=section, where=name)
    fields = [pa.field(one, plain_type(_decoded(schema.field(one).type))) for one in keep]
    return Found(
        kind="build",
        base=base,
        format="Parquet",
        identity=build.fingerprint,
        shape=shape_of_schema(schema, where=f"{key}: {storage.url}", is_build=True),
        kept=pa.schema(fields),
        columns=tuple(schema.names),
        files=files_table(
            [record.partition.key for record in records[:count]],
            [record.rows for record in records[:count]],
            [record.size for record in records[:count]],
        ),
        warnings=tuple(warnings),
    )


def _without_hole(records: Sequence[PartitionRecord]) -> tuple[int, int]:
    """How many files follow each other from row 0 on, and their rows."""
    end = 0
    for number, record in enumerate(records):
        if record.start != end:
            return number, end
        end = record.stop
    return len(records), end


def _schema(ranges: FileRanges, record: PartitionRecord) -> pa.Schema:
    name = record.partition.key
    with reading(name), open_parquet(ranges.open(name, 0, record.size)) as file:
        return file.schema_arrow


def _decoded(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


@contextmanager
def _of_source(key: str) -> Iterator[None]:
    """What storage says of an output is said of the source."""
    try:
        yield
    except (StorageError, PreflightError) as exc:
        if str(exc).startswith(f"{key}:") or isinstance(exc, SourceError):
            raise
        text = of_section(key, str(exc)).replace("The output URL", "The URL")
        raise PreflightError(f"{key}: {text}") from exc
