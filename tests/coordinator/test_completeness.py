"""A job that has heard of all its rows looks for them for a while before it gives up."""

import pytest

from magpie_ray.coordinator.completeness import LOOK_AGAIN_SECONDS, read_all_committed
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.errors import GenerationFailedError, InterruptedJobError, ObjectNotFoundError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord, StoredObject
from tests.support.builds import build_of, commit, memory_storage

BUILD = build_of(4)


class LaggingStorage(Storage):
    """Listings lack some keys, and these keys can't be found either where `hides_keys`."""

    def __init__(self) -> None:
        super().__init__(memory_storage().url)
        self.lacking = set[str]()
        self.hides_keys = False
        self.tails: list[str] = []

    def list_objects(self, prefix: str) -> list[StoredObject]:
        return [item for item in super().list_objects(prefix) if item.key not in self.lacking]

    def size(self, key: str) -> int:
        if self.hides_keys and key in self.lacking:
            raise ObjectNotFoundError(key)
        return super().size(key)

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        self.tails.append(key)
        return super().read_tail(key, nbytes, size=size)


class Waiting:
    """A sleep that takes no time; after so many seconds the listing is up to date."""

    def __init__(self, storage: LaggingStorage, lag: float) -> None:
        self.storage, self.lag, self.slept = storage, lag, 0.0

    def __call__(self, seconds: float) -> None:
        self.slept += seconds
        if self.slept == self.lag:
            self.storage.lacking.clear()


@pytest.fixture
def storage() -> LaggingStorage:
    return LaggingStorage()


@pytest.fixture
def records(storage: LaggingStorage) -> list[PartitionRecord]:
    return [commit(storage, BUILD, 0, 4), commit(storage, BUILD, 4, 8)]


def read(
    storage: LaggingStorage, ledger: Ledger, sleep: Waiting, *, stop: bool = False
) -> list[PartitionRecord]:
    return read_all_committed(storage, BUILD, ledger, num_rows=8, stop_requested=lambda: stop, sleep=sleep)


def test_what_is_listed_and_known_needs_no_footer_and_keeps_its_hash(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    sleep = Waiting(storage, 0)
    found = read(storage, Ledger(records), sleep)
    assert found == records
    assert [record.sha256 for record in found] == [record.sha256 for record in records]
    assert (sleep.slept, storage.tails) == (0, [])


def test_a_file_that_is_found_by_its_key_is_there_though_no_listing_shows_it(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    storage.lacking = {record.partition.key for record in records}
    sleep = Waiting(storage, 0)
    assert read(storage, Ledger(records), sleep) == records
    assert sleep.slept == 0


def test_a_file_of_another_size_than_reported_is_not_taken_for_it(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    storage.replace(records[1].partition.key, b"PAR1")
    storage.lacking = {records[1].partition.key}
    with pytest.raises(GenerationFailedError, match=r"lacks rows 4\.\.7"):
        read(storage, Ledger(records), Waiting(storage, 0))


@pytest.mark.parametrize("lag", [1, 50, sum(LOOK_AGAIN_SECONDS)])
def test_a_listing_that_lags_is_read_again(
    storage: LaggingStorage, records: list[PartitionRecord], lag: int
) -> None:
    storage.lacking, storage.hides_keys = {records[1].partition.key}, True
    sleep = Waiting(storage, lag)
    assert read(storage, Ledger(records), sleep) == records
    assert lag <= sleep.slept <= lag + max(LOOK_AGAIN_SECONDS)


def test_a_removed_file_ends_the_job_after_a_while(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    storage.delete(records[1].partition.key)
    sleep = Waiting(storage, 0)
    with pytest.raises(GenerationFailedError, match=r"lacks rows 4\.\.7.*were files removed\?.*again"):
        read(storage, Ledger(records), sleep)
    assert 60 <= sleep.slept <= 180


def test_a_job_that_is_stopped_looks_no_longer(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    storage.delete(records[1].partition.key)
    sleep = Waiting(storage, 0)
    with pytest.raises(InterruptedJobError, match=r"lacks rows 4\.\.7"):
        read(storage, Ledger(records), sleep, stop=True)
    assert sleep.slept == 1


def test_a_listed_file_that_can_not_be_read_yet_is_looked_at_again(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    class Late(LaggingStorage):
        def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
            self.tails.append(key)
            if len(self.tails) <= 2:
                raise ObjectNotFoundError(f"there is no {key}")
            return super().read_tail(key, nbytes, size=size)

    late = Late()
    theirs = [commit(late, BUILD, 0, 4), commit(late, BUILD, 4, 8)]
    sleep = Waiting(late, 0)
    assert read(late, Ledger([]), sleep) == theirs
    assert sleep.slept <= 3


def test_a_footer_that_was_damaged_on_its_way_is_read_again(
    storage: LaggingStorage, records: list[PartitionRecord]
) -> None:
    class Flipping(LaggingStorage):
        def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
            self.tails.append(key)
            tail = super().read_tail(key, nbytes, size=size)
            return tail[:-20] + bytes([tail[-20] ^ 1]) + tail[-19:] if len(self.tails) == 1 else tail

    flipping = Flipping()
    theirs = [commit(flipping, BUILD, 0, 4), commit(flipping, BUILD, 4, 8)]
    assert read(flipping, Ledger([]), Waiting(flipping, 0)) == theirs
