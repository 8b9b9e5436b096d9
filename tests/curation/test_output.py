"""Writing curated data sets: layout, resume, refusals, equal bytes."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from magpie_ray.curation.output import CuratedSet, find_finished, write_rows
from magpie_ray.dataset.layout import SUCCESS_KEY
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildMismatchError, ConfigError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import memory_storage

SCHEMA = pa.schema([pa.field("row_id", pa.int64(), nullable=False), ("word", pa.string())])


def wanted(rows_per_file: int = 4, **identity: object) -> CuratedSet:
    settings = {"distance": 0.05} | identity
    return CuratedSet(kind="dedupe", identity=settings, schema=SCHEMA, rows_per_file=rows_per_file)


def batches(rows: int, size: int = 3) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, size):
        ids = range(start, min(rows, start + size))
        yield pa.record_batch([pa.array(ids, pa.int64()), pa.array(map(str, ids))], schema=SCHEMA)


def files(storage: Storage) -> dict[str, bytes]:
    return {item.key: storage.read(item.key) for item in storage.list_objects("data/")}


def test_a_curated_set_is_verified_as_a_build_is() -> None:
    storage = memory_storage()
    assert write_rows(storage, wanted(), batches(10)) == 10
    verification = verify(storage)
    assert verification.problems == ()
    assert [(record.start, record.stop) for record in verification.records] == [(0, 4), (4, 8), (8, 10)]
    assert verification.num_rows == 10
    assert verification.unhashed == 0


def test_the_same_set_again_is_found_finished() -> None:
    storage = memory_storage()
    assert find_finished(storage, wanted()) is None
    write_rows(storage, wanted(), batches(10))
    assert find_finished(storage, wanted()) == 10


def test_other_settings_are_refused_by_name() -> None:
    storage = memory_storage()
    write_rows(storage, wanted(), batches(10))
    with pytest.raises(BuildMismatchError, match=r"distance: the build has 0\.05, now 0\.1"):
        find_finished(storage, wanted(distance=0.1))
    with pytest.raises(BuildMismatchError, match="rows_per_partition"):
        write_rows(storage, wanted(rows_per_file=5), batches(10))


def test_rows_without_a_record_are_refused() -> None:
    storage = memory_storage()
    write_rows(storage, wanted(), batches(10))
    storage.delete("_magpie/build.json")
    with pytest.raises(PreflightError, match=r"there is no _magpie/build\.json"):
        find_finished(storage, wanted())


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_the_bytes_are_the_same_however_batches_are_cut_and_runs_are_interrupted(size: int) -> None:
    whole, resumed = memory_storage(), memory_storage()
    write_rows(whole, wanted(), batches(10))

    def stopped() -> Iterator[pa.RecordBatch]:
        yield from batches(6, size)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(resumed, wanted(), stopped())
    assert not resumed.exists(SUCCESS_KEY)
    assert find_finished(resumed, wanted()) is None
    write_rows(resumed, wanted(), batches(10, size))
    assert files(resumed) == files(whole)
    assert verify(resumed).ok


def test_no_rows_leave_the_output_as_it_was() -> None:
    storage = memory_storage()
    with pytest.raises(ConfigError, match="there are no rows"):
        write_rows(storage, wanted(), [])
    assert storage.list_objects("") == []
