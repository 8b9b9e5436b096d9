"""Rows to files when several workers have the same partition."""

from collections.abc import Callable
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest

from magpie_ray.dataset import manifest
from magpie_ray.dataset.columns import to_table
from magpie_ray.dataset.layout import rejects_key
from magpie_ray.dataset.rejects import read_rejects
from magpie_ray.errors import StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Rejection
from magpie_ray.worker.committer import Committer
from tests.support.builds import build_of, config_of, memory_storage, row_of
from tests.support.executors import AtOnce

PARTITION = Partition(start=0, stop=2)


class HookedStorage(Storage):
    """Calls `before` with the verb and the key of each write."""

    def __init__(self) -> None:
        super().__init__(memory_storage().url)
        self.before: Callable[[str, str], None] = lambda verb, key: None

    def create(self, key: str, data: bytes) -> None:
        self.before("create", key)
        super().create(key, data)

    def replace(self, key: str, data: bytes) -> None:
        self.before("replace", key)
        super().replace(key, data)


def worker(storage: Storage, name: str, run: int = 1, *, rejected: bool = True) -> Committer:
    """A worker with the partition open and one rejected attempt behind it; it finishes with `finish`."""
    spec: Any = SimpleNamespace(
        build_spec=SimpleNamespace(
            config=config_of(), rejects_per_reason=20, table=lambda rows: to_table(rows, config_of())
        ),
        storage=storage,
        fingerprint=build_of().fingerprint,
        run=run,
    )
    committer = Committer(spec, AtOnce())
    committer.open(PARTITION)
    if rejected:
        committer.book(
            [
                Rejection(
                    row_id=0,
                    attempt=1,
                    role="user",
                    turn=1,
                    reason="empty",
                    text=f"rejected by {name}",
                    user_tokens=1,
                    assistant_tokens=0,
                )
            ]
        )
    return committer


def finish(committer: Committer, name: str) -> None:
    committer.book([row_of(row_id, (f"Why {row_id}?", name)) for row_id in (0, 1)])


def sample(storage: Storage) -> list[object]:
    return [reject["text"] for reject in read_rejects(storage)]


@pytest.mark.parametrize("moment", ["before the sample", "before the rows"])
def test_the_sample_of_the_worker_whose_rows_stay_is_the_one_that_stays(moment: str) -> None:
    """The winner's whole commit falls between two writes of the loser."""
    storage = HookedStorage()
    winner, loser = worker(storage, "winner", run=1), worker(storage, "loser", run=2)
    awaited = rejects_key(PARTITION) if moment == "before the sample" else PARTITION.key

    def the_winner_commits(verb: str, key: str) -> None:
        if key == awaited:
            storage.before = lambda verb, key: None
            finish(winner, "winner")

    storage.before = the_winner_commits
    finish(loser, "loser")
    [record] = manifest.read_committed(storage, build_of())
    assert record.run == 1
    assert sample(storage) == ["rejected by winner"]


def test_a_sample_that_was_left_without_rows_is_replaced_by_that_of_the_rows() -> None:
    storage = memory_storage()
    worker(storage, "died").keep_rejects(())
    assert sample(storage) == ["rejected by died"]
    finish(worker(storage, "later"), "later")
    assert sample(storage) == ["rejected by later"]
    worker(storage, "exhausted").keep_rejects(())
    assert sample(storage) == ["rejected by later"]


def test_a_worker_that_is_too_late_takes_its_sample_back() -> None:
    storage = memory_storage()
    finish(worker(storage, "winner", rejected=False), "winner")
    finish(worker(storage, "loser", run=2), "loser")
    assert sample(storage) == []


@pytest.mark.parametrize("order", list(permutations(["a", "b", "c"])))
def test_whoever_comes_later_changes_no_sample(order: tuple[str, ...]) -> None:
    storage = memory_storage()
    workers = {name: worker(storage, name, run=run) for run, name in enumerate(order)}
    for name in order:
        finish(workers[name], name)
    assert sample(storage) == [f"rejected by {order[0]}"]


def test_the_sample_is_there_once_the_rows_are() -> None:
    storage = HookedStorage()
    seen = list[bool]()

    def look(verb: str, key: str) -> None:
        if key == PARTITION.key:
            seen.append(storage.exists(rejects_key(PARTITION)))

    storage.before = look
    finish(worker(storage, "first"), "first")
    assert seen == [True]


def test_a_sample_that_can_not_be_replaced_loses_no_rows(caplog: pytest.LogCaptureFixture) -> None:
    storage = HookedStorage()
    worker(storage, "died").keep_rejects(())

    def refuse(verb: str, key: str) -> None:
        if verb == "replace":
            raise StorageError("no room")

    storage.before = refuse
    committer = worker(storage, "later")
    finish(committer, "later")
    [event] = committer.ended_uploads()
    assert [record.partition for record in event.files] == [PARTITION]
    assert "could not be kept: no room" in caplog.text
