"""The end of builds that several drivers work on, in any interleaving of their requests to storage."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.dataset import build_record, completion, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.layout import BUILD_KEY, MANIFEST_KEY, SUCCESS_KEY, heartbeat_key, to_json
from magpie_ray.dataset.run_records import GONE_SECONDS, RunRecord, RunStatus
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import AlreadyExistsError, BuildReplacedError, ObjectNotFoundError
from magpie_ray.storage.storage import Storage, StoredObject
from tests.support.builds import build_of, commit, complete_build, memory_storage

GRID = 2
BUILD = build_of(GRID)


class DatedStorage(Storage):
    """Objects in a dictionary, with a clock of its own; `before` is called before each request."""

    def __init__(self) -> None:
        super().__init__("memory://dated")
        self.clock = 1_000_000.0
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.before: Callable[[str, str], None] = lambda verb, key: None

    def now(self) -> float:
        return self.clock

    def create(self, key: str, data: bytes) -> None:
        self.before("create", key)
        if self.objects.setdefault(key, (data, self.clock))[0] != data:
            raise AlreadyExistsError(key)

    def replace(self, key: str, data: bytes) -> None:
        self.before("replace", key)
        self.objects[key] = (data, self.clock)

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.objects.pop(key, None)

    def read(self, key: str) -> bytes:
        self.before("read", key)
        if key not in self.objects:
            raise ObjectNotFoundError(key)
        return self.objects[key][0]

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        return self.read(key)[-nbytes:]

    def exists(self, key: str) -> bool:
        self.before("look for", key)
        return key in self.objects

    def list_objects(self, prefix: str) -> list[StoredObject]:
        self.before("list", prefix)
        return [
            StoredObject(key=key, size=len(data), modified=at)
            for key, (data, at) in sorted(self.objects.items())
            if key.startswith(prefix)
        ]

    def beat(self, run: RunRecord) -> None:
        """As the heartbeat does, which no request of the driver delays."""
        self.objects[heartbeat_key(run.number)] = (to_json({"token": run.token}), self.clock)


def rows_in(storage: Storage) -> list[int]:
    records = manifest.read_committed(storage, BUILD)
    return [row for record in records for row in range(record.start, record.stop)]


def finish(storage: Storage, num_rows: int, run: RunRecord | None) -> None:
    """The last words of a run whose rows are committed."""
    records = manifest.read_committed(storage, BUILD)
    assert not manifest.pending(num_rows, BUILD, records)
    if run:
        run_records.end_run(storage, run, outcome="done")
    completion.finish(storage, BUILD, records, num_rows=num_rows, run=run)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """What is left to others is told a thousand times."""
    caplog.set_level(logging.CRITICAL, "magpie_ray")


class KilledError(Exception):
    """The driver is gone."""


class Driver:
    """A driver of `num_rows` rows that commits one partition a step; `state` is where it stands."""

    def __init__(self, storage: DatedStorage, num_rows: int, random: Random) -> None:
        self.storage, self.num_rows, self.random = storage, num_rows, random
        self.run: RunRecord | None = None
        self.state = "new"
        self.beaten = self.silence = 0.0

    def beat(self) -> None:
        if self.run:
            self.storage.beat(self.run)
            self.silence = max(self.silence, self.storage.clock - self.beaten)
        self.beaten = self.storage.clock

    def look(self) -> None:
        """As the visits of the output do."""
        marked = manifest.is_marked_complete(self.storage)
        records = manifest.read_committed(self.storage, BUILD)
        if marked and manifest.pending(self.num_rows, BUILD, records):
            manifest.mark_growing(self.storage)

    def step(self) -> None:
        self.beat()
        if self.run is None:
            self.run = run_records.start_run(self.storage, num_rows=self.num_rows, host="here", config={})
            manifest.mark_growing(self.storage)
            self.beat()
            self.state = "working"
        elif left := manifest.pending(self.num_rows, BUILD, manifest.read_committed(self.storage, BUILD)):
            partition = left[0] if self.random.random() < 0.7 else self.random.choice(left)
            with suppress(AlreadyExistsError):
                commit(self.storage, BUILD, partition.start, partition.stop)
        else:
            finish(self.storage, self.num_rows, self.run)
            self.state = "done"

    def stop(self) -> None:
        """On a signal."""
        if self.run:
            run_records.end_run(self.storage, self.run, outcome="interrupted")
        self.state = "stopped"


class Interleaving:
    """Drivers that are suspended before any of their requests while others go on, or for ever."""

    def __init__(self, random: Random, sizes: list[int]) -> None:
        self.random, self.storage = random, DatedStorage()
        build_record.open_build(self.storage, BUILD)
        self.drivers = [Driver(self.storage, size, random) for size in sizes]
        self.acting: list[Driver] = []
        self.kills = random.random() < 0.3
        self.storage.before = self.preempt

    def preempt(self, verb: str, key: str) -> None:
        if not self.acting or self.random.random() > 0.05:
            return
        if self.kills and self.random.random() < 0.1:
            raise KilledError
        for _ in range(self.random.randint(1, 12)):
            self.someone_acts()

    def someone_acts(self) -> None:
        self.storage.clock += self.random.choice([1.0, 10.0, 60.0])
        able = [d for d in self.drivers if d not in self.acting and d.state in ("new", "working")]
        if not able or len(self.acting) == 3:
            return
        driver = self.random.choice(able)
        for other in able:
            other.beat()
        self.acting.append(driver)
        try:
            if self.random.random() < 0.03:
                driver.stop()
            else:
                driver.step()
        except KilledError:
            driver.state = "killed"
        finally:
            self.acting.remove(driver)

    def play(self) -> None:
        while any(driver.state in ("new", "working") for driver in self.drivers):
            self.someone_acts()
            self.check_the_mark()
        self.storage.before = lambda verb, key: None

    def check_the_mark(self) -> None:
        """While nobody is suspended, it stands only over what every driver at work or done has wanted.

        One that was taken for dead first has to look. One that is killed between a write and its look may
        leave a mark too early.
        """
        if any(driver.state == "killed" for driver in self.drivers):
            return
        at_work = [driver for driver in self.drivers if driver.state == "working"]
        for driver in at_work:
            driver.beat()
            if driver.silence >= GONE_SECONDS:
                driver.look()
        if manifest.is_marked_complete(self.storage):
            rows = rows_in(self.storage)
            assert rows == list(range(len(rows)))
            done = [driver for driver in self.drivers if driver.state == "done"]
            assert len(rows) >= max(driver.num_rows for driver in [*at_work, *done])


@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(1, 9), min_size=2, max_size=3))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_success_stands_only_over_all_rows_that_a_live_or_finished_run_wanted(
    seed: int, sizes: list[int]
) -> None:
    random = Random(seed)
    play = Interleaving(random, sizes)
    play.play()
    storage = play.storage
    rows = rows_in(storage)
    finished = [driver.num_rows for driver in play.drivers if driver.state == "done"]
    # The same command again, once the dead are known to be dead, puts everything in order.
    storage.clock += GONE_SECONDS + 1
    wanted = max([*finished, len(rows), 1])
    last = Driver(storage, max(wanted, max(rows, default=0) + 1), random)
    while last.state != "done":
        last.step()
    assert manifest.is_marked_complete(storage)
    assert rows_in(storage) == list(range(last.num_rows))
    assert not [problem for problem in verify(storage).problems if "run asked" not in problem]


@pytest.fixture
def storage() -> DatedStorage:
    storage = DatedStorage()
    build_record.open_build(storage, BUILD)
    return storage


def started(storage: DatedStorage, num_rows: int) -> RunRecord:
    run = run_records.start_run(storage, num_rows=num_rows, host="here", config={})
    manifest.mark_growing(storage)
    storage.beat(run)
    return run


@pytest.mark.parametrize("order", ["smaller first", "larger first", "nothing to do"])
def test_a_smaller_command_leaves_success_to_a_driver_that_grows_the_build(
    storage: DatedStorage, order: str
) -> None:
    if order == "smaller first":
        ours = started(storage, 2)
    theirs = started(storage, 4)
    if order == "larger first":
        ours = started(storage, 2)
    commit(storage, BUILD, 0, 2)
    finish(storage, 2, None if order == "nothing to do" else ours)
    assert not manifest.is_marked_complete(storage)
    commit(storage, BUILD, 2, 4)
    finish(storage, 4, theirs)
    assert manifest.is_marked_complete(storage)


def test_the_record_of_a_dead_driver_keeps_success_away_for_some_minutes_and_the_log_says_so(
    storage: DatedStorage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "magpie_ray")
    theirs = started(storage, 4)
    commit(storage, BUILD, 0, 2)
    storage.clock += GONE_SECONDS - 1
    finish(storage, 2, None)
    assert not manifest.is_marked_complete(storage)
    assert f"_SUCCESS is not written: run {theirs.number} on " in caplog.text
    assert "is at work on 4 rows" in caplog.text
    assert "run this command again in 5 minutes" in caplog.text
    storage.clock += 1
    finish(storage, 2, None)
    assert manifest.is_marked_complete(storage)


@pytest.mark.parametrize("key", [MANIFEST_KEY, SUCCESS_KEY])
def test_a_driver_that_wakes_over_a_finished_build_leaves_the_newer_records(
    storage: DatedStorage, key: str
) -> None:
    """It was suspended just before it wrote this object."""
    zombie = started(storage, 2)
    records = [commit(storage, BUILD, 0, 2)]

    def others_finish(verb: str, written: str) -> None:
        if (verb, written) == ("replace", key):
            storage.before = lambda verb, key: None
            theirs = started(storage, 6)
            more = [*records, *(commit(storage, BUILD, start, start + 2) for start in (2, 4))]
            run_records.end_run(storage, theirs, outcome="done")
            completion.finish(storage, BUILD, more, num_rows=6, run=theirs)

    storage.before = others_finish
    run_records.end_run(storage, zombie, outcome="done")
    final = completion.finish(storage, BUILD, records, num_rows=2, run=zombie)
    assert [record.start for record in final] == [0, 2, 4]
    assert verify(storage).problems == ()
    # A manifest that replaced a newer one is mended from the footers, which hold no hashes.
    assert verify(storage).unhashed == (2 if key == MANIFEST_KEY else 0)


def test_a_checkpoint_of_a_driver_that_wakes_takes_nothing_out_of_the_manifest(
    storage: DatedStorage,
) -> None:
    known = [commit(storage, BUILD, 0, 2)]
    newer = [*known, commit(storage, BUILD, 2, 4)]
    manifest.write_manifest(storage, BUILD, newer, num_rows=4)
    checkpoints = manifest.Checkpoints(storage, BUILD, num_rows=2)
    checkpoints.write(known)
    checkpoints.write(known)
    kept = manifest.read_manifest(storage)
    assert list(kept.values()) == newer
    assert all(record.sha256 for record in kept.values())


def test_a_checkpoint_over_another_builds_manifest_keeps_nothing_of_it(storage: DatedStorage) -> None:
    other: BuildRecord = build_of(GRID, seed=5)
    manifest.write_manifest(storage, other, [commit(memory_storage(), other, 2, 4)], num_rows=4)
    ours = commit(storage, BUILD, 0, 2)
    manifest.Checkpoints(storage, BUILD, num_rows=2).write([ours])
    assert list(manifest.read_manifest(storage).values()) == [ours]


def test_the_last_words_write_build_json_again(storage: DatedStorage) -> None:
    run = started(storage, 2)
    commit(storage, BUILD, 0, 2)
    for item in storage.list_objects("_magpie"):
        storage.delete(item.key)
    finish(storage, 2, run)
    assert verify(storage).problems == ()
    assert build_record.require_build(storage) == BUILD


def test_the_last_words_do_not_complete_another_build(storage: DatedStorage) -> None:
    run = started(storage, 2)
    commit(storage, BUILD, 0, 2)
    storage.delete(BUILD_KEY)
    build_record.open_build(storage, build_of(GRID, seed=5))
    with pytest.raises(BuildReplacedError, match=r"build\.json is of another build"):
        finish(storage, 2, run)
    assert not manifest.is_marked_complete(storage)


def test_a_store_without_times_tells_a_dead_driver_by_what_it_wrote() -> None:
    class Undated(DatedStorage):
        def list_objects(self, prefix: str) -> list[StoredObject]:
            return [replace(item, modified=None) for item in super().list_objects(prefix)]

    storage = Undated()
    run_records.start_run(storage, num_rows=4, host="here", config={})
    storage.clock = time.time()
    assert [status.alive for status in statuses(storage)] == [True]
    storage.clock += GONE_SECONDS + 2
    assert [status.alive for status in statuses(storage)] == [False]
    beat = datetime.fromtimestamp(storage.clock, UTC).isoformat()
    storage.replace(heartbeat_key(1), to_json({"written": beat}))
    assert [status.alive for status in statuses(storage)] == [True]


def statuses(storage: Storage) -> list[RunStatus]:
    return [status for status in run_records.read_run_statuses(storage) if isinstance(status, RunStatus)]


def test_a_complete_build_stays_as_it_is_under_the_same_command() -> None:
    storage = memory_storage()
    record, records = complete_build(storage)
    assert manifest.is_up_to_date(storage, records)
    completion.finish(storage, record, records, num_rows=10, run=None)
    assert verify(storage).problems == ()
