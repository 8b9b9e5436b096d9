"""What lies at an output before a command writes there."""

import pytest

from magpie_ray.errors import PreflightError
from magpie_ray.preflight.existing import read_existing
from tests.support.builds import memory_storage


def test_files_without_a_build_are_refused_and_nothing_is_written() -> None:
    storage = memory_storage()
    storage.create("data/part-000000000000.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        read_existing(storage)
    assert [item.key for item in storage.list_objects("")] == ["data/part-000000000000.parquet"]


def test_a_new_build_begins_beside_strays_but_not_beside_rows_of_somebody() -> None:
    storage = memory_storage()
    for key in ("data/.DS_Store", "data/notes.txt"):
        storage.create(key, b"?")
    assert read_existing(storage) is None
    storage.create("data/train.parquet", b"rows of somebody")
    with pytest.raises(PreflightError, match=r"holds files, but there is no _magpie/build\.json"):
        read_existing(storage)
