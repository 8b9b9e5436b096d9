"""Only names of partitions are judged, and readers are warned of what they would read besides."""

import pytest

from magpie_ray.dataset import manifest
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.reader import read_rows
from magpie_ray.dataset.verify import verify
from magpie_ray.monitoring.status import read_status
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage

HIDDEN = (
    "data/.DS_Store",
    "data/.part-000000000000.parquet.crc",
    "data/._notes",
    "data/.nfs000000000012",
    "data/_temporary/0/part-000000000000.parquet",
    "data/_SUCCESS",
    "data/.hidden/x.parquet",
)
STRAYS = (
    "data/Thumbs.db",
    "data/part-000000000000.parquet.tmp",
    "data/part-000000000000.parquet.crc",
    "data/part-000000000000.PARQUET",
    "data/desktop.ini",
    "data/sub/notes",
)
FOREIGN = (
    "data/._part-000000000000.parquet",
    "data/part-000000000000 (1).parquet",
    "data/part-0.parquet",
    "data/part-\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660.parquet",
    "data/sub/part-000000000000.parquet",
)


@pytest.fixture
def storage() -> Storage:
    storage = memory_storage()
    complete_build(storage)
    return storage


def drop(storage: Storage, *keys: str) -> None:
    for key in keys:
        storage.create(key, b"?")


def test_a_file_is_a_partition_hidden_a_stray_or_foreign_by_its_name(storage: Storage) -> None:
    partitions = read_data_folder(storage).partitions
    drop(storage, *HIDDEN, *STRAYS, *FOREIGN)
    folder = read_data_folder(storage)
    assert folder.partitions == partitions
    assert sorted(folder.strays) == sorted((*STRAYS, *FOREIGN))
    assert sorted(folder.foreign) == sorted(FOREIGN)


@pytest.mark.parametrize("key", [*HIDDEN, *STRAYS, *FOREIGN])
def test_no_file_of_another_program_keeps_anybody_from_a_build(storage: Storage, key: str) -> None:
    record, records = complete_build(memory_storage())
    drop(storage, key)
    assert manifest.read_committed(storage, record) == records
    assert read_status(storage).complete
    assert len(list(read_rows(storage))) == 10


def test_verify_tells_strays_from_files_that_readers_take_for_rows(storage: Storage) -> None:
    drop(storage, *HIDDEN)
    assert (verify(storage).problems, verify(storage).notes) == ((), ())
    drop(storage, *STRAYS)
    found = verify(storage)
    assert found.ok
    [note] = found.notes
    assert "data/Thumbs.db" in note
    drop(storage, *FOREIGN)
    found = verify(storage)
    assert len(found.problems) == len(FOREIGN)
    assert all(any(problem.startswith(key) for problem in found.problems) for key in FOREIGN)
