"""The dispatcher under any order of events: nothing lost, nothing doubled, no deadlock, bounded failures."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from magpie_ray import plan
from magpie_ray.dispatch import Dispatcher
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition, PartitionRecord

WINDOW = 20


def record(start: int, stop: int) -> PartitionRecord:
    return PartitionRecord(start=start, stop=stop, fingerprint="f", run=1, size=1)


def cells(number: int, *, rows: int = 10) -> list[Partition]:
    return [Partition(start=rows * i, stop=rows * i + rows) for i in range(number)]


def dispatcher(partitions: list[Partition], *, slots: int, grid: int = 10, failures: int = 3) -> Dispatcher:
    return Dispatcher(partitions, num_slots=slots, grid=grid, max_failures_per_partition=failures)


class Workers(RuleBasedStateMachine):
    """A job's workers as the dispatcher sees them, with another driver that commits heads of partitions."""

    @initialize(
        num_rows=st.integers(1, 120),
        grid=st.integers(1, 25),
        slots=st.integers(1, 4),
        window=st.integers(1, 40),
    )
    def begin(self, num_rows: int, grid: int, slots: int, window: int) -> None:
        self.num_rows, self.window = num_rows, window
        self.dispatcher = dispatcher(plan.pending(num_rows, grid, []), slots=slots, grid=grid, failures=10**6)
        self.open: list[list[Partition]] = [[] for _ in range(slots)]
        self.given_rows = [0] * slots
        self.started = [0] * slots
        self.staffed = [True] * slots
        self.files: dict[int, int] = {}

    def pick(self, data: st.DataObject, *, with_open: bool) -> int:
        slots = [i for i, staffed in enumerate(self.staffed) if staffed and (self.open[i] or not with_open)]
        return data.draw(st.sampled_from(slots))

    @precondition(lambda self: any(self.staffed))
    @rule(data=st.data())
    def reports_progress(self, data: st.DataObject) -> None:
        slot = self.pick(data, with_open=False)
        self.started[slot] = data.draw(st.integers(self.started[slot], self.given_rows[slot]))
        self.progress(slot)

    def progress(self, slot: int) -> list[Partition]:
        given = self.dispatcher.progress(slot, started=self.started[slot], live_window=self.window)
        self.open[slot] += given
        self.given_rows[slot] += sum(p.num_rows for p in given)
        largest = max((p.num_rows for p in given), default=0)
        assert not given or self.given_rows[slot] - self.started[slot] < self.window + largest
        return given

    @precondition(lambda self: any(self.open))
    @rule(data=st.data(), ahead=st.booleans())
    def commits(self, data: st.DataObject, ahead: bool) -> None:
        """A partition ends in a file: the worker's own, or one that was there, with another end."""
        slot = self.pick(data, with_open=True)
        partition = data.draw(st.sampled_from(self.open[slot]))
        stop = data.draw(st.integers(partition.start + 1, partition.stop)) if ahead else partition.stop
        self.commit(slot, partition, stop)

    def commit(self, slot: int, partition: Partition, stop: int) -> None:
        self.open[slot].remove(partition)
        assert partition.start not in self.files
        self.files[partition.start] = stop
        self.dispatcher.committed(slot, partition, record(partition.start, stop))

    @precondition(lambda self: sum(self.staffed) > 0 and not self.dispatcher.done)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        slot = self.pick(data, with_open=False)
        self.open[slot].clear()
        self.given_rows[slot] = self.started[slot] = 0
        self.staffed[slot] = False
        try:
            self.staffed[slot] = self.dispatcher.lost(slot, cause="bad luck")
        except GenerationFailedError:
            assert not any(self.staffed)
        else:
            assert any(self.staffed)

    @precondition(lambda self: not any(self.staffed))
    @rule()
    def has_given_up(self) -> None:
        assert not self.dispatcher.done

    @invariant()
    def every_row_is_pending_or_open_or_committed(self) -> None:
        slots = self.dispatcher._slots
        assert [slot.open for slot in slots] == self.open
        partitions = [p for slot in slots for p in (*slot.pending, *slot.open)]
        rows = [row for p in partitions for row in range(p.start, p.stop)]
        rows += [row for start, stop in self.files.items() for row in range(start, stop)]
        assert sorted(rows) == list(range(self.num_rows))
        assert self.dispatcher.done == (not partitions)

    def teardown(self) -> None:
        """Whatever happened before: workers that live on finish the job."""
        if not hasattr(self, "dispatcher") or not any(self.staffed):
            return
        while not self.dispatcher.done:
            moved = False
            for slot in (i for i, staffed in enumerate(self.staffed) if staffed):
                self.started[slot] = self.given_rows[slot]
                moved |= bool(self.progress(slot))
                for partition in list(self.open[slot]):
                    self.commit(slot, partition, partition.stop)
                    moved = True
            assert moved, "what is left is given to nobody"
        self.every_row_is_pending_or_open_or_committed()


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=60, stateful_step_count=25, derandomize=True, deadline=None)


def test_a_worker_gets_its_own_shard_in_order_until_its_window_is_full() -> None:
    d = dispatcher(cells(8), slots=2)
    assert d.progress(0, started=0, live_window=WINDOW) == cells(8)[:2]
    assert d.progress(1, started=0, live_window=WINDOW) == cells(8)[4:6]


def test_partitions_on_their_way_to_a_worker_count_as_unstarted() -> None:
    d = dispatcher(cells(8), slots=1)
    assert len(d.progress(0, started=0, live_window=WINDOW)) == 2
    assert d.progress(0, started=0, live_window=WINDOW) == []  # said before they arrived
    assert d.progress(0, started=1, live_window=WINDOW) == [cells(8)[2]]


def test_a_dry_worker_takes_from_the_tail_of_the_fullest_shard() -> None:
    d = dispatcher(cells(9), slots=3)
    for slot in (0, 1):
        d.progress(slot, started=0, live_window=30)
    assert d.progress(0, started=30, live_window=10) == [cells(9)[8]]
    assert d.progress(1, started=30, live_window=10) == [cells(9)[7]]
    assert d.progress(2, started=0, live_window=10) == [cells(9)[6]]


def test_a_worker_that_is_not_dry_yet_leaves_other_shards_alone() -> None:
    d = dispatcher(cells(4), slots=2)
    assert d.progress(0, started=0, live_window=40) == [*cells(4)[:2]]
    assert d.progress(0, started=10, live_window=40) == []
    assert d.progress(0, started=11, live_window=40) == [cells(4)[3]]


def test_what_a_found_file_does_not_cover_is_given_out_again() -> None:
    d = dispatcher(cells(1), slots=1)
    [partition] = d.progress(0, started=0, live_window=WINDOW)
    d.committed(0, partition, record(0, 4))
    assert not d.done
    assert d.progress(0, started=10, live_window=WINDOW) == [Partition(start=4, stop=10)]
    d.committed(0, Partition(start=4, stop=10), record(4, 10))
    assert d.done


def test_a_found_file_that_covers_more_leaves_nothing() -> None:
    d = dispatcher([Partition(start=0, stop=5)], slots=1)
    [partition] = d.progress(0, started=0, live_window=WINDOW)
    d.committed(0, partition, record(0, 10))
    assert d.done


def test_what_a_lost_worker_had_goes_first_to_the_one_that_replaces_it() -> None:
    d = dispatcher(cells(6), slots=1)
    given = d.progress(0, started=0, live_window=WINDOW)
    assert d.lost(0, cause="killed")
    assert d.progress(0, started=0, live_window=WINDOW) == given == cells(6)[:2]


def test_work_that_comes_back_at_the_very_end_is_taken_by_idle_workers() -> None:
    d = dispatcher(cells(2), slots=2)
    for slot in (0, 1):
        d.progress(slot, started=0, live_window=WINDOW)
    d.committed(0, cells(2)[0], record(0, 10))
    assert d.progress(0, started=10, live_window=WINDOW) == []
    assert d.lost(1, cause="killed")
    assert d.progress(0, started=10, live_window=WINDOW) == [cells(2)[1]]
    d.committed(0, cells(2)[1], record(10, 20))
    assert d.done


def test_an_idle_worker_that_dies_is_not_replaced_and_no_failure() -> None:
    d = dispatcher(cells(1), slots=4)
    slot = next(slot for slot in range(4) if d.progress(slot, started=0, live_window=WINDOW))
    for idle in set(range(4)) - {slot}:
        assert not d.lost(idle, cause="spot notice")
    assert d.lost(slot, cause="spot notice")
    assert d.progress(slot, started=0, live_window=WINDOW) == cells(1)


def test_a_worker_lost_when_all_is_done_is_no_failure() -> None:
    d = dispatcher(cells(1), slots=1)
    d.progress(0, started=0, live_window=WINDOW)
    d.committed(0, cells(1)[0], record(0, 10))
    assert not any(d.lost(0, cause="late") for _ in range(5))


def test_a_partition_that_is_lost_too_often_ends_the_job_with_the_cause() -> None:
    d = dispatcher(cells(3), slots=1, failures=2)
    d.progress(0, started=0, live_window=WINDOW)
    assert d.lost(0, cause="out of memory")
    d.progress(0, started=0, live_window=WINDOW)
    with pytest.raises(
        GenerationFailedError, match=r"rows 0\.\.9 failed 2 times.*max_failures.*out of memory"
    ):
        d.lost(0, cause="out of memory")


def test_engines_that_never_start_end_the_job_with_the_cause() -> None:
    d = dispatcher(cells(4), slots=2)
    assert [d.lost(0, cause="no driver") for _ in range(3)] == [True, True, False]
    assert [d.lost(1, cause="no driver") for _ in range(2)] == [True, True]
    with pytest.raises(GenerationFailedError, match=r"3 times in a row.*said: no driver"):
        d.lost(1, cause="no driver")


def test_a_slot_on_a_broken_node_is_given_up_and_the_others_do_its_work() -> None:
    d = dispatcher(cells(4), slots=2)
    for _ in range(3):
        d.lost(0, cause="broken GPU")
    started = 0
    while not d.done:
        for partition in d.progress(1, started=started, live_window=WINDOW):
            started += partition.num_rows
            d.committed(1, partition, record(partition.start, partition.stop))


def test_failed_starts_count_only_in_a_row() -> None:
    d = dispatcher(cells(50), slots=1, failures=100)
    for _ in range(10):
        assert d.lost(0, cause="spot")
        assert d.lost(0, cause="spot")
        d.progress(0, started=0, live_window=WINDOW)
        assert d.lost(0, cause="spot")


def test_there_may_be_more_slots_than_partitions() -> None:
    d = dispatcher(cells(1), slots=3)
    assert d.num_slots == 3
    assert sum(len(d.progress(slot, started=0, live_window=WINDOW)) for slot in range(3)) == 1
