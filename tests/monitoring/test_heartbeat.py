"""The heartbeat of a run, and how two runs that a store can't keep apart learn of each other."""

import json
import threading
import time
from dataclasses import asdict, replace

import pytest

from magpie_ray.dataset import run_records
from magpie_ray.dataset.layout import heartbeat_key, to_json
from magpie_ray.dataset.run_records import (
    BEAT_SECONDS,
    GONE_SECONDS,
    RunRecord,
    end_run,
    read_heartbeat,
)
from magpie_ray.errors import StorageError
from magpie_ray.monitoring.heartbeat import Heartbeat
from magpie_ray.storage.storage import Storage
from magpie_ray.types import StoredObject
from tests.monitoring.test_progress import HALF_WAY
from tests.support.builds import memory_storage
from tests.support.executors import AtOnce


class TroubledStorage(Storage):
    """Dates its objects as `dates` says, by key, and fails at `trouble`, the name of a method."""

    def __init__(self, *, exclusive: bool = True) -> None:
        super().__init__(memory_storage().url, exclusive=exclusive)
        self.dates: dict[str, float] = {}
        self.trouble = ""
        self.tells_times = True

    def retrying_for(self, seconds: float) -> Storage:
        return self

    def list_objects(self, prefix: str) -> list[StoredObject]:
        self._fail("list_objects")
        return [self._dated(item) for item in super().list_objects(prefix)]

    def read(self, key: str) -> bytes:
        self._fail("read")
        return super().read(key)

    def replace(self, key: str, data: bytes) -> None:
        self._fail("replace")
        super().replace(key, data)

    def _fail(self, name: str) -> None:
        if self.trouble == name:
            raise StorageError("the store is away")

    def _dated(self, item: StoredObject) -> StoredObject:
        return replace(item, modified=self.dates.get(item.key, item.modified) if self.tells_times else None)


class Beats:
    """The heartbeats of some runs: each call is one beat and returns what it warned of."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self._heartbeats: dict[str, Heartbeat] = {}
        self._now = 100.0

    def __call__(self, storage: Storage, run: RunRecord) -> list[str]:
        if run.token not in self._heartbeats:
            self._heartbeats[run.token] = Heartbeat(storage, run, clock=lambda: self._now, executor=AtOnce())
        self._now += BEAT_SECONDS
        self._caplog.clear()
        self._heartbeats[run.token].show(HALF_WAY)
        return [record.getMessage() for record in self._caplog.records]


@pytest.fixture
def beat(caplog: pytest.LogCaptureFixture) -> Beats:
    return Beats(caplog)


def run_of(storage: Storage, host: str = "here") -> RunRecord:
    return run_records.start_run(storage, num_rows=10, host=host, config={})


def single_writer() -> TroubledStorage:
    return TroubledStorage(exclusive=False)


def age(storage: TroubledStorage, run: RunRecord, seconds: float) -> None:
    """Lets the files of a run be that old."""
    storage.dates = dict.fromkeys([run.key, heartbeat_key(run.number)], time.time() - seconds)


def test_the_first_snapshot_is_written_at_once_and_another_one_each_half_minute() -> None:
    storage, now = memory_storage(), [100.0]
    run = run_of(storage)
    assert read_heartbeat(storage, run.number) is None
    with Heartbeat(storage, run, clock=lambda: now[0], executor=AtOnce()) as heartbeat:
        seen = []
        for rows in range(7):
            heartbeat.show(replace(HALF_WAY, rows=rows))
            fields = read_heartbeat(storage, run.number)
            assert fields is not None
            assert fields["token"] == run.token
            seen.append(fields["rows"])
            now[0] += BEAT_SECONDS / 2
    assert seen == [0, 0, 2, 2, 4, 4, 6]


def test_requests_run_in_a_thread_of_their_own() -> None:
    storage = memory_storage()
    run = run_of(storage)
    with Heartbeat(storage, run) as heartbeat:
        heartbeat.show(HALF_WAY)
        deadline = time.monotonic() + 30
        while read_heartbeat(storage, run.number) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)


class Counting(Storage):
    """Knows when a key that begins so has been written so many times."""

    def __init__(self, number: int, *, prefix: str) -> None:
        super().__init__(memory_storage().url)
        self._left, self._prefix = number, prefix
        self.done = threading.Event()

    def retrying_for(self, seconds: float) -> Storage:
        return self

    def replace(self, key: str, data: bytes) -> None:
        super().replace(key, data)
        self._left -= key.startswith(self._prefix)
        if self._left <= 0:
            self.done.set()


def test_from_the_end_of_the_jobs_loop_on_beats_go_on_by_themselves_until_the_run_has_ended() -> None:
    storage = Counting(4, prefix=heartbeat_key(1))
    run = run_of(storage)
    with Heartbeat(storage, run, every_seconds=0.01) as heartbeat:
        heartbeat.show(HALF_WAY)
        heartbeat.note_last()
        assert storage.done.wait(timeout=30)
        fields = read_heartbeat(storage, run.number)
    assert fields is not None
    assert (fields["token"], fields["rows"]) == (run.token, HALF_WAY.rows)


def test_a_store_that_fails_is_warned_of_once_and_stops_nothing(beat: Beats) -> None:
    storage = TroubledStorage()
    run = run_of(storage)
    storage.trouble = "replace"
    warnings = [warning for _ in range(4) for warning in beat(storage, run)]
    assert sum("the store is away" in warning for warning in warnings) == 1


# ---- two runs on a store without exclusive creation


def test_a_run_alone_is_never_warned(beat: Beats) -> None:
    storage = single_writer()
    run = run_of(storage)
    assert [beat(storage, run) for _ in range(3)] == [[], [], []]
    end_run(storage, run, outcome="done")
    assert beat(storage, run_of(storage)) == []


def test_two_runs_at_once_are_both_warned(beat: Beats) -> None:
    storage = single_writer()
    first, second = run_of(storage, "a"), run_of(storage, "b")
    for run, other in (
        (first, "run 2 on 'b'"),
        (second, "run 1 on 'a'"),
        (first, "run 2 on 'b'"),
        (second, "run 1 on 'a'"),
    ):
        [warning] = beat(storage, run)
        assert warning.startswith(other)
        assert "end one of the two" in warning


def test_a_run_is_warned_of_another_one_that_begins_later(beat: Beats) -> None:
    storage = single_writer()
    first = run_of(storage, "a")
    assert beat(storage, first) == []
    run_of(storage, "b")
    [warning] = beat(storage, first)
    assert warning.startswith("run 2 on 'b'")


def test_a_store_with_exclusive_creation_needs_no_warning(beat: Beats) -> None:
    storage = TroubledStorage()
    first, second = run_of(storage), run_of(storage)
    assert [beat(storage, run) for run in (first, second, first)] == [[], [], []]


def test_two_runs_that_got_one_number_are_both_warned(beat: Beats) -> None:
    """Without exclusive creation two drivers can take the same number in the same moment."""
    storage = single_writer()
    first = run_of(storage, "a")
    second = replace(first, token="of the second", host="b")
    storage.replace(second.key, to_json(asdict(second)))
    assert beat(storage, first) == []
    for run, other in (
        (second, "another driver of run 1 "),
        (first, "run 1 on 'b' "),
        (second, "another driver of run 1 "),
    ):
        [warning] = beat(storage, run)
        assert warning.startswith(other)


def test_a_run_that_has_ended_is_not_warned_of_and_one_at_work_still_is(beat: Beats) -> None:
    storage = single_writer()
    first, second = run_of(storage), run_of(storage)
    for run in (first, second):
        beat(storage, run)
    end_run(storage, first, outcome="interrupted")
    assert beat(storage, second) == []
    third = run_of(storage)
    [warning] = beat(storage, third)
    assert warning.startswith("run 2 ")
    assert "run 1 " not in warning


@pytest.mark.parametrize(
    ("seconds", "warns"),
    [(GONE_SECONDS / 2, True), (GONE_SECONDS + 2, False), (-3600, True)],  # of a clock an hour ahead
)
def test_a_run_that_died_is_warned_of_at_the_start_until_its_heartbeat_is_old(
    beat: Beats, seconds: float, warns: bool
) -> None:
    storage = single_writer()
    dead = run_of(storage)
    beat(storage, dead)
    age(storage, dead, seconds)
    later = run_of(storage)
    assert bool(beat(storage, later)) is warns
    assert beat(storage, later) == [], "it has not written since"


def test_a_heartbeat_that_changed_is_warned_of_whatever_the_times_say(beat: Beats) -> None:
    storage = single_writer()
    first, second = run_of(storage), run_of(storage)
    beat(storage, first)
    beat(storage, second)
    age(storage, second, 1e6)
    assert len(beat(storage, first)) == 1


def test_a_store_that_tells_no_times_is_read_for_what_changed(beat: Beats) -> None:
    storage = single_writer()
    storage.tells_times = False
    first, second = run_of(storage), run_of(storage)
    assert [len(beat(storage, run)) for run in (first, second)] == [1, 1]
    assert beat(storage, second) == [], "the first has not written since"
    storage.replace(heartbeat_key(1), to_json({"rows": 7, "token": first.token}))
    assert len(beat(storage, second)) == 1


def test_a_heartbeat_of_an_earlier_version_has_no_token_and_is_warned_of_all_the_same(beat: Beats) -> None:
    storage = single_writer()
    run = run_of(storage)
    storage.replace(heartbeat_key(1), to_json({"rows": 0, "written": "2026-11-30T10:55:17+00:00"}))
    assert len(beat(storage, run)) == 1, "the same number"
    later = run_of(storage)
    storage.replace(heartbeat_key(1), to_json({"rows": 0, "written": "2026-11-30T10:55:17+00:00"}))
    [warning] = beat(storage, later)
    assert warning.startswith("run 1 ")


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"{}", b'{"token": 7}', b'{"token": "t", "rows": "x"}'])
def test_a_heartbeat_that_is_none_is_warned_of_and_written_over(beat: Beats, raw: bytes) -> None:
    storage = single_writer()
    run = run_of(storage)
    storage.replace(heartbeat_key(1), raw)
    assert len(beat(storage, run)) == 1
    assert json.loads(storage.read(heartbeat_key(1)))["token"] == run.token
    assert beat(storage, run) == []


def test_a_record_that_is_none_is_warned_of_and_stops_nothing(beat: Beats) -> None:
    storage = single_writer()
    storage.replace("_magpie/runs/000001.json", b"{")
    run = replace(run_of(storage), number=2)
    [warning] = beat(storage, run)
    assert "_magpie/runs/000001.json is damaged or foreign" in warning
    assert beat(storage, run) == []


@pytest.mark.parametrize("verb", ["list_objects", "read", "replace"])
def test_a_store_that_fails_is_warned_of_and_never_stops_a_run(beat: Beats, verb: str) -> None:
    storage = single_writer()
    run, _ = run_of(storage), run_of(storage)
    storage.trouble = verb
    warnings = [*beat(storage, run), *beat(storage, run)]
    assert "the store is away" in "".join(warnings)
    storage.trouble = ""
    beat(storage, run)
    assert beat(storage, run) == []


def test_a_run_is_taken_for_gone_only_after_several_beats() -> None:
    assert GONE_SECONDS >= 3 * BEAT_SECONDS
