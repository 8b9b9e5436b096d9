"""Carriers hold what they are given, and refuse what can't be."""

import pickle
from dataclasses import FrozenInstanceError

import pytest

from magpie_ray.types import Partition, PartitionRecord


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 2)])
def test_a_partition_has_rows(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match=f"0 <= start < stop, got {start}..{stop}"):
        Partition(start=start, stop=stop)


def test_a_partition_is_named_by_its_first_row_so_that_names_sort_as_rows_do() -> None:
    partitions = [Partition(start=start, stop=start + 1) for start in (0, 9, 10, 420_000, 10**11)]
    keys = [partition.key for partition in partitions]
    assert keys[3] == "data/part-000000420000.parquet"
    assert keys == sorted(keys)
    assert str(Partition(start=4, stop=8)) == "rows 4..7"
    assert Partition(start=4, stop=8).num_rows == 4


def test_carriers_are_frozen_and_travel() -> None:
    record = PartitionRecord(start=4, stop=8, fingerprint="f", run=1, size=9, rejected={"empty": 2})
    assert (record.partition, record.rows) == (Partition(start=4, stop=8), 4)
    assert pickle.loads(pickle.dumps(record)) == record
    with pytest.raises(FrozenInstanceError):
        record.start = 5  # type: ignore[misc]
