"""The ledger and the output in step, by a thread that the job's loop never waits for."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.watcher import Ended, Requested
from magpie_ray.dataset import build_record, completion, manifest, run_records
from magpie_ray.dataset.actor_history import read_actor_history
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.layout import BUILD_KEY, INPUT_BLOCKS_KEY, MANIFEST_KEY
from magpie_ray.errors import BuildReplacedError, CorruptBuildError, StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord, StoredObject
from tests.support.builds import build_of, commit, memory_storage


class TroubledStorage(Storage):
    """Fails while there is `trouble`; listings wait for the gate."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.trouble: str | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def retrying_for(self, seconds: float) -> Storage:
        return self

    def list_objects(self, prefix: str) -> list[StoredObject]:
        self._pass()
        return super().list_objects(prefix)

    def replace(self, key: str, data: bytes) -> None:
        self._pass()
        super().replace(key, data)

    def _pass(self) -> None:
        self.entered.set()
        assert self.gate.wait(timeout=30)
        if self.trouble:
            raise StorageError(self.trouble)


@pytest.fixture
def storage() -> Iterator[TroubledStorage]:
    storage = TroubledStorage(memory_storage().url)
    yield storage
    storage.gate.set()


RECORD = build_of(grid=4)


class Visits(ThreadPoolExecutor):
    """An executor that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.futures: list[Future[Any]] = []

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(super().submit(*args, **kwargs))
        return self.futures[-1]

    def wait(self) -> None:
        wait(self.futures, timeout=30)


class Sync(OutputSync):
    """One that may look at any time, and its ledger and visits."""

    def __init__(
        self, storage: Storage, build: BuildRecord, *records: PartitionRecord, **settings: Any
    ) -> None:
        self.ledger, self.visits = Ledger(records), Visits()
        always = {"look_seconds": 0.0, "look_share": 0.0, "checkpoint_seconds": 0.0}
        super().__init__(storage, build, self.ledger, executor=self.visits, **(always | settings))

    def look(self) -> list[PartitionRecord]:
        """What is found by the end of a visit that begins after those under way."""
        found: list[PartitionRecord] = []
        for _ in range(2):
            self.visits.wait()
            found += self.poll()
        self.visits.wait()
        return found + self.poll()


@contextmanager
def opened(
    storage: Storage, *records: PartitionRecord, num_rows: int = 12, **settings: Any
) -> Iterator[Sync]:
    sync = Sync(storage, RECORD, *records, num_rows=num_rows, **settings)
    yield sync
    sync.visits.shutdown(wait=False)


def test_files_of_others_are_found_once(storage: TroubledStorage) -> None:
    with opened(storage) as sync:
        assert sync.look() == []
        theirs = [commit(storage, RECORD, 0, 4), commit(storage, RECORD, 8, 10)]
        assert sorted(sync.look(), key=lambda record: record.start) == theirs
        assert sync.look() == []
        more = commit(storage, RECORD, 10, 12)
        assert sync.look() == [more]
        assert sync.ledger.rows == 8


def test_own_files_are_not_reported_as_found_though_a_look_comes_between_the_file_and_its_event(
    storage: TroubledStorage,
) -> None:
    known, ours = commit(storage, RECORD, 0, 4), commit(storage, RECORD, 4, 8)
    with opened(storage, known) as sync:
        sync.poll()
        sync.visits.wait()
        assert sync.visits.futures[-1].result() == [ours]
        assert sync.ledger.note(ours)
        assert sync.poll() == []
        assert sync.ledger.rows == 8


def test_a_found_file_is_known_when_its_event_comes_late(storage: TroubledStorage) -> None:
    with opened(storage) as sync:
        ours = commit(storage, RECORD, 0, 4)
        assert sync.look() == [ours]
        assert not sync.ledger.note(ours)
        assert sync.ledger.rows == 4


def test_the_loop_does_not_wait_for_a_storage_that_hangs(storage: TroubledStorage) -> None:
    theirs = commit(storage, RECORD, 0, 4)
    storage.gate.clear()
    with opened(storage) as sync:
        assert sync.poll() == []
        assert storage.entered.wait(timeout=30)
        assert [sync.poll() for _ in range(5)] == [[]] * 5
        assert len(sync.visits.futures) == 1, "one visit at a time"
        storage.gate.set()
        assert sync.look() == [theirs]


def test_a_checkpoint_saves_the_next_run_the_footers_of_all_that_is_known(storage: TroubledStorage) -> None:
    theirs, ours = commit(storage, RECORD, 0, 4), commit(storage, RECORD, 4, 8)
    with opened(storage) as sync:
        sync.ledger.note(ours)
        sync.poll()
        sync.visits.wait()
        assert manifest.read_manifest(storage) == {r.partition.key: r for r in (theirs, ours)}
    fields = json.loads(storage.read(MANIFEST_KEY))
    assert (fields["num_rows"], fields["rows"], fields["fingerprint"]) == (12, 8, RECORD.fingerprint)


def test_checkpoints_are_written_more_rarely_than_it_looks(storage: TroubledStorage) -> None:
    theirs = commit(storage, RECORD, 0, 4)
    with opened(storage, checkpoint_seconds=1e6) as sync:
        assert sync.look() == [theirs]
        assert sync.look() == []
        assert not storage.exists(MANIFEST_KEY)


def test_looking_takes_a_small_part_of_the_time_however_long_a_listing_takes(
    storage: TroubledStorage,
) -> None:
    with opened(storage, look_share=1e9) as sync:
        assert sync.poll() == []
        sync.visits.wait()
        for _ in range(2):  # its end is noted, and it is not time for another
            assert sync.poll() == []
            assert len(sync.visits.futures) == 1


def test_a_storage_that_fails_is_told_and_nothing_found_is_lost(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(storage) as sync:
        assert sync.look() == []
        theirs = commit(storage, RECORD, 0, 4)
        storage.trouble = "the bucket sulks"
        sync.look()
        assert "a look at the output or a checkpoint failed: the bucket sulks" in caplog.text
        storage.trouble = None
        assert theirs in sync.look() + sync.look()
        assert sync.ledger.rows == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda storage: storage.create("data/part-000000000004.parquet", b"?"),
            "0004.parquet is not a whole",
        ),
        (lambda storage: commit(storage, build_of(seed=3), 4, 8), "belongs to another build"),
    ],
    ids=["foreign", "of another build"],
)
def test_what_does_not_belong_ends_the_job(
    storage: TroubledStorage, make: Callable[[Storage], object], message: str
) -> None:
    make(storage)
    with opened(storage) as sync, pytest.raises(CorruptBuildError, match=message):
        sync.look()


def test_strays_are_warned_of_once_and_end_no_job(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(storage) as sync:
        for key in ("data/.DS_Store", "data/_temporary/0/part-000000000000.parquet", "data/Thumbs.db"):
            storage.create(key, b"?")
        theirs = commit(storage, RECORD, 0, 4)
        assert sync.look() == [theirs]
        storage.create("data/more.parquet", b"?")
        assert sync.look() == sync.look() == []
    warnings = [entry.message for entry in caplog.records if "did not write" in entry.message]
    assert ["data/Thumbs.db" in text or "data/more.parquet" in text for text in warnings] == [True, True]
    assert "DS_Store" not in caplog.text
    assert "_temporary" not in caplog.text


def test_records_that_were_removed_are_written_again(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    build_record.open_build(storage, RECORD)
    run = run_records.start_run(storage, num_rows=12, host="here", config={})
    with opened(storage, run=run) as sync:
        sync.look()
        assert "removed" not in caplog.text
        for item in storage.list_objects("_magpie"):
            storage.delete(item.key)
        sync.look()
    assert build_record.require_build(storage) == RECORD
    assert run_records.read_runs(storage) == [run]
    assert "build.json was removed" in caplog.text
    assert "000001.json was removed" in caplog.text


def test_inputs_that_were_removed_are_copied_again(storage: TroubledStorage) -> None:
    storage.create(INPUT_BLOCKS_KEY, b"{}")
    copied: list[int] = []

    def copy() -> None:
        copied.append(1)
        storage.create(INPUT_BLOCKS_KEY, b"{}")

    with opened(storage, copy_inputs=copy) as sync:
        sync.look()
        assert not copied
        storage.delete(INPUT_BLOCKS_KEY)
        sync.look()
        assert copied == [1]


def test_a_visit_that_fails_after_a_long_time_puts_off_the_next_one_by_a_little(
    storage: TroubledStorage,
) -> None:
    now = 0.0

    def slow_and_in_vain() -> None:
        nonlocal now
        now += 120.0
        raise StorageError("no answer")

    times = {"clock": lambda: now, "look_seconds": 5.0, "look_share": 200.0}
    with opened(storage, copy_inputs=slow_and_in_vain, **times) as sync:
        for visit in range(1, 4):
            now += 30.0
            sync.poll()
            sync.visits.wait()
            assert len(sync.visits.futures) == visit
            sync.poll()


def test_a_job_ends_where_another_build_has_begun_and_leaves_that_alone(storage: TroubledStorage) -> None:
    build_record.open_build(storage, RECORD)
    ours = commit(storage, RECORD, 0, 4)
    with opened(storage, ours) as sync:
        for item in storage.list_objects(""):
            storage.delete(item.key)
        build_record.open_build(storage, build_of(seed=3))
        before = storage.list_objects("")
        with pytest.raises(BuildReplacedError, match=r"build\.json is of another build"):
            sync.look()
        sync.close(30)
    assert storage.list_objects("") == before


def test_a_damaged_build_json_is_warned_of_once_and_ends_no_job(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.replace(BUILD_KEY, b"{")
    with opened(storage) as sync:
        theirs = commit(storage, RECORD, 0, 4)
        assert sync.look() == [theirs]
        sync.look()
    assert caplog.text.count("build.json is damaged") == 1
    assert storage.read(BUILD_KEY) == b"{"


def test_a_committed_file_that_is_gone_is_warned_of_once(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    ours = commit(storage, RECORD, 0, 4)
    with opened(storage, ours) as sync:
        sync.look()
        assert "is gone" not in caplog.text
        storage.delete(ours.partition.key)
        sync.look()
        sync.look()
    assert caplog.text.count("was committed and is gone") == 1


def test_success_is_taken_away_where_a_smaller_run_has_ended_and_more_rows_are_to_come(
    storage: TroubledStorage,
) -> None:
    theirs = commit(storage, RECORD, 0, 4)
    completion.finish(storage, RECORD, [theirs], num_rows=4, run=None)
    with opened(storage, num_rows=8) as sync:
        sync.look()
        assert not manifest.is_marked_complete(storage)


def test_success_stays_where_all_rows_are_there_though_this_run_has_not_heard_of_them(
    storage: TroubledStorage,
) -> None:
    theirs = [commit(storage, RECORD, 0, 4), commit(storage, RECORD, 4, 8)]
    completion.finish(storage, RECORD, theirs, num_rows=8, run=None)
    with opened(storage, num_rows=8) as sync:
        assert sync.look() == theirs
        assert manifest.is_marked_complete(storage)


def test_the_last_checkpoint_has_what_was_noted_last(storage: TroubledStorage) -> None:
    with opened(storage) as sync:
        sync.look()
        ours = commit(storage, RECORD, 0, 4)
        sync.ledger.note(ours)
        sync.close(30)
    assert list(manifest.read_manifest(storage).values()) == [ours]


def test_a_last_checkpoint_that_fails_is_told(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(storage) as sync:
        storage.trouble = "no space left"
        sync.close(30)
    assert "the last checkpoint could not be written: no space left" in caplog.text


def test_a_last_checkpoint_is_not_waited_for_for_ever(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.gate.clear()
    with opened(storage) as sync:
        sync.close(0.01)
        assert "the last checkpoint takes too long" in caplog.text
        storage.gate.set()


def test_a_look_that_hangs_does_not_keep_close_either(
    storage: TroubledStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.gate.clear()
    with opened(storage) as sync:
        sync.poll()
        assert storage.entered.wait(timeout=30)
        sync.close(0.01)
        assert "the last checkpoint takes too long" in caplog.text
        storage.gate.set()


def test_a_look_that_ends_after_the_run_takes_no_mark_of_success_away(storage: TroubledStorage) -> None:
    known = commit(storage, RECORD, 0, 4)
    manifest.mark_complete(storage)  # by a smaller run
    storage.gate.clear()
    storage.entered.clear()
    with opened(storage, known) as sync:
        sync.poll()
        assert storage.entered.wait(timeout=30)
        sync.close(0.01, checkpoint=False)
        storage.gate.set()  # the build is complete by now: the look does not know it yet
        sync.visits.wait()
    assert manifest.is_marked_complete(storage)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[PartitionRecord], list[PartitionRecord], int]:
    """Records of a build, events about them in some order, some more than once, and how many are known."""
    grid, position, records = 6, 0, list[PartitionRecord]()
    while position < 40:
        stop = min(position + draw(st.integers(1, grid)), (position // grid + 1) * grid)
        if draw(st.booleans()) or records:
            records.append(
                PartitionRecord(
                    start=position,
                    stop=stop,
                    fingerprint=RECORD.fingerprint,
                    run=draw(st.integers(1, 3)),
                    size=draw(st.integers(1, 99)),
                    rejected=draw(st.dictionaries(st.sampled_from(["empty", "marker"]), st.integers(1, 9))),
                    user_tokens=draw(st.integers(0, 99)),
                )
            )
        position = stop
    known = draw(st.integers(0, len(records)))
    repeated = draw(st.lists(st.sampled_from(records), max_size=10)) if records else []
    return records, draw(st.permutations(records[known:] + repeated)), known


def written_by(build: BuildRecord, known: list[PartitionRecord], events: list[PartitionRecord]) -> bytes:
    """The manifest of a run that began with these partitions and was told of those, but for the time."""
    storage = memory_storage()
    sync = Sync(storage, build, *known, num_rows=40)
    new = [record for record in events if sync.ledger.note(record)]
    assert len(new) == len({record.start for record in new})
    sync.close(30)
    fields = json.loads(storage.read(MANIFEST_KEY))
    assert (fields["rows"], len(fields["partitions"])) == (sync.ledger.rows, len(known) + len(new))
    raw = storage.read(MANIFEST_KEY).replace(fields["written"].encode(), b"")
    storage.delete(MANIFEST_KEY)
    return raw


@settings(max_examples=60, derandomize=True, deadline=None)
@given(histories())
def test_any_order_and_repetition_of_commit_events_leads_to_the_same_manifest(
    history: tuple[list[PartitionRecord], list[PartitionRecord], int],
) -> None:
    records, events, known = history
    assert written_by(RECORD, records[:known], events) == written_by(RECORD, [], records)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_the_lives_of_the_actors_are_written_with_checkpoints_and_at_the_end(
    storage: TroubledStorage, checkpoint: bool
) -> None:
    history = ActorHistory(run=1)
    history.hear(0, Requested())
    with opened(storage, history=history) as sync:
        sync.look()
        assert read_actor_history(storage, 1) is not None
        history.hear(1, Requested())
        for slot in (0, 1):
            history.hear(slot, Ended())
        sync.close(30, checkpoint=checkpoint)
    stored = read_actor_history(storage, 1)
    assert stored is not None
    assert [life.end for life in stored.lives] == ["ended", "ended"]
