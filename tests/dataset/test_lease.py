"""The lease warns of a second run where the store can't keep two apart; it never stops one."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from magpie_ray.dataset import lease, run_records
from magpie_ray.dataset.lease import FRESH_SECONDS, LEASE_KEY, Lease
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import StorageError
from magpie_ray.storage.storage import Storage
from tests.support.builds import memory_storage


def run_of(storage: Storage, host: str = "here") -> RunRecord:
    return run_records.start_run(storage, num_rows=10, host=host, config={})


def age(storage: Storage, seconds: float) -> None:
    """Lets the lease be that old."""
    renewed = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")
    storage.replace(
        LEASE_KEY, json.dumps(json.loads(storage.read(LEASE_KEY)) | {"renewed": renewed}).encode()
    )


def test_a_run_alone_is_never_warned() -> None:
    storage = memory_storage()
    run = run_of(storage)
    alone = Lease(storage, run)
    assert [alone.take(), alone.renew(), alone.renew()] == [None] * 3
    fields = json.loads(storage.read(LEASE_KEY))
    assert (fields["token"], fields["host"], fields["run"]) == (run.token, "here", 1)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(fields["renewed"])) < timedelta(minutes=1)
    alone.release()
    assert not storage.exists(LEASE_KEY)
    assert Lease(storage, run_of(storage)).take() is None


def test_two_runs_at_once_are_both_told() -> None:
    storage = memory_storage()
    first, second = Lease(storage, run_of(storage, "a")), Lease(storage, run_of(storage, "b"))
    assert first.take() is None
    for claim, other in (
        (second.take, "run 1 on 'a'"),
        (first.renew, "run 2 on 'b'"),
        (second.renew, "run 1"),
    ):
        told = claim()
        assert told is not None
        assert told.startswith(other)
        assert "end one of the two" in told


def test_who_leaves_takes_only_its_own_lease_away() -> None:
    storage = memory_storage()
    first, second = Lease(storage, run_of(storage)), Lease(storage, run_of(storage))
    first.take()
    second.take()
    first.release()
    assert storage.exists(LEASE_KEY)
    second.release()
    first.release()
    assert not storage.exists(LEASE_KEY)


@pytest.mark.parametrize(
    ("seconds", "warns"),
    [(FRESH_SECONDS / 2, True), (FRESH_SECONDS + 2, False), (-3600, True)],  # of a clock an hour ahead
)
def test_a_run_that_died_is_warned_of_until_its_lease_is_old(seconds: float, warns: bool) -> None:
    storage = memory_storage()
    Lease(storage, run_of(storage)).take()
    age(storage, seconds)
    assert (Lease(storage, run_of(storage)).take() is not None) is warns


def test_a_lease_that_somebody_wrote_since_is_told_whatever_the_clocks_say() -> None:
    storage = memory_storage()
    first, second = Lease(storage, run_of(storage)), Lease(storage, run_of(storage))
    first.take()
    second.take()
    age(storage, 1e6)
    assert first.renew() is not None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"token": "t", "host": "h", "run": 1, "renewed": "yesterday"}',
        b'{"token": "t", "host": "h", "run": 1, "renewed": "2026-01-01T00:00:00"}',
        b'{"token": "t", "host": "h", "run": 1, "renewed": 7}',
    ],
)
def test_a_lease_that_is_none_is_warned_of_and_written_over(raw: bytes) -> None:
    storage = memory_storage()
    storage.replace(LEASE_KEY, raw)
    mine = Lease(storage, run_of(storage))
    mine.release()
    told = mine.take()
    assert told is not None
    assert LEASE_KEY in told
    assert mine.renew() is None


def test_a_store_that_fails_is_warned_of_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> bytes:
        raise StorageError("the store is away")

    storage = memory_storage()
    mine = Lease(storage, run_of(storage))
    for verb in ("read", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(Storage, verb, failing)
            assert "the store is away" in str(mine.take())
            assert "the store is away" in str(mine.renew())
            mine.release()
    assert mine.renew() is None


def test_it_is_fresh_for_several_renewals() -> None:
    assert lease.FRESH_SECONDS >= 3 * lease.RENEW_SECONDS
