"""The dispatcher under any order of events: nothing lost, nothing doubled, no deadlock, bounded failures."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from statistics import median

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.slot import Slot
from magpie_ray.dataset import partitioning
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import Partition
from tests.support.held import growth, held_by

WINDOW = 20


def part(start: int, stop: int) -> Partition:
    return Partition(start=start, stop=stop)


def cells(number: int, *, rows: int = 10) -> list[Partition]:
    return [part(rows * i, rows * i + rows) for i in range(number)]


def dispatcher(
    partitions: Sequence[Partition],
    *,
    slots: int,
    grid: int = 10,
    failures: int = 3,
    backwards: bool = False,
) -> Dispatcher:
    return Dispatcher(
        partitions, num_slots=slots, grid=grid, max_failures_per_partition=failures, backwards=backwards
    )


def report(
    d: Dispatcher,
    slot: int,
    *,
    started: int = 0,
    finished: int = 0,
    live_window: int = WINDOW,
    now: float = 0.0,
) -> list[Partition]:
    return d.progress(slot, started=started, finished=finished, live_window=live_window, now=now)


def rows_of(partitions: Sequence[Partition]) -> list[int]:
    return [row for p in partitions for row in range(p.start, p.stop)]


def slowest_elsewhere(slots: Sequence[Slot], own: Slot, now: float) -> Partition | None:
    """What is to be copied to `own`, found by looking at all that everybody has open."""
    holders = Counter(partition for slot in slots for partition in slot.open)
    others = [
        (slot.seconds_left(partition, now), partition)
        for slot in slots
        for partition in [p for p in slot.open if holders[p] == 1][-1:]
        if slot is not own
    ]
    rates = {i: slot.pace.rows_per_second for i, slot in enumerate(slots) if slot.pace}
    known = [rate for rate in rates.values() if rate]
    rate = rates.get(next(i for i, slot in enumerate(slots) if slot is own)) or (
        median(known) if known else None
    )
    if not others or rate is None:
        return None
    seconds, partition = max(others)
    unfinished = own.unfinished(own.open[-1]) if own.open else 0
    return partition if seconds > 1.5 * (unfinished + partition.num_rows) / rate else None


@dataclass
class Worker:
    """A slot's current worker, as the dispatcher has been told of it. node: "" where that is unknown."""

    node: str = ""
    alive: bool = True
    heard: bool = False
    given: int = 0
    started: int = 0
    finished: int = 0


class Workers(RuleBasedStateMachine):
    """A job's workers as the dispatcher sees them, and another driver that writes into the same cells."""

    @initialize(
        num_rows=st.integers(1, 120),
        grid=st.integers(1, 25),
        slots=st.integers(1, 4),
        window=st.integers(1, 40),
        failures=st.sampled_from([2, 10**6]),
        backwards=st.booleans(),
        nodes=st.sets(st.sampled_from(["a", "b", "c"])),
        told=st.booleans(),
        data=st.data(),
    )
    def begin(
        self,
        num_rows: int,
        grid: int,
        slots: int,
        window: int,
        failures: int,
        backwards: bool,
        nodes: set[str],
        told: bool,
        data: st.DataObject,
    ) -> None:
        self.nodes = frozenset(nodes)
        self.failed_on: dict[int, set[str]] = {}  # by row, where a worker failed that had it open
        self.num_rows, self.grid, self.window, self.now = num_rows, grid, window, 0.0
        self.dispatcher = dispatcher(
            partitioning.pending(num_rows, grid, []),
            slots=slots,
            grid=grid,
            failures=failures,
            backwards=backwards,
        )
        if told:
            self.dispatcher.note_nodes(self.nodes)
        self.told_nodes = self.nodes if told else frozenset()
        self.workers = [self.new_worker(slot, data) for slot in range(slots)]
        self.open: list[list[Partition]] = [[] for _ in range(slots)]
        self.files: dict[int, Partition] = {}  # in storage, by first row
        self.heard: set[Partition] = set()  # of these the dispatcher knows
        self.told: list[tuple[int, Partition, list[Partition]]] = []
        self.given_up = False

    def new_worker(self, slot: int, data: st.DataObject) -> Worker:
        worker = Worker(node=data.draw(st.sampled_from(sorted(self.nodes))) if self.nodes else "")
        if worker.node:
            self.dispatcher.placed(slot, worker.node)
        return worker

    def alive(self) -> list[int]:
        return [] if self.given_up else [i for i, worker in enumerate(self.workers) if worker.alive]

    def at_work(self) -> Set[str]:
        return {worker.node for worker in self.workers if worker.alive and worker.heard}

    def pick(self, data: st.DataObject, *, with_open: bool = False) -> int:
        return data.draw(st.sampled_from([i for i in self.alive() if self.open[i] or not with_open]))

    @precondition(lambda self: self.alive())
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0, 30.0]))
    def reports_progress(self, data: st.DataObject, seconds: float) -> None:
        slot = self.pick(data)
        worker = self.workers[slot]
        self.now += seconds
        worker.started = data.draw(st.integers(worker.started, worker.given))
        worker.finished = data.draw(st.integers(worker.finished, worker.started))
        self.progress(slot)

    def progress(self, slot: int) -> list[Partition]:
        worker, before = self.workers[slot], [p for held in self.open for p in held]
        idle = not self.dispatcher.num_pending
        worker.heard = True
        given = report(
            self.dispatcher,
            slot,
            started=worker.started,
            finished=worker.finished,
            live_window=self.window,
            now=self.now,
        )
        self.open[slot] += given
        worker.given += sum(p.num_rows for p in given)
        assert not given or worker.given - worker.started < self.window + given[-1].num_rows
        if copies := [p for p in given if p in before]:
            assert copies == given
            others = [p for p in self.dispatcher.returned if worker.node not in self.where_it_failed(p)]
            assert idle or not others, "a copy while there was something else to give"
            return given
        for partition in given:
            failed_on = self.where_it_failed(partition)
            if worker.node in failed_on:
                assert (self.told_nodes or self.at_work()) <= failed_on or self.at_work() <= failed_on
        return given

    def where_it_failed(self, partition: Partition) -> Set[str]:
        return self.failed_on.get(partition.start, set())

    @precondition(lambda self: any(self.open[slot] for slot in self.alive()))
    @rule(data=st.data(), times=st.sampled_from([1, 1, 2]))
    def commits(self, data: st.DataObject, times: int) -> None:
        """A worker ends a partition; the event may come twice."""
        slot = self.pick(data, with_open=True)
        partition = data.draw(st.sampled_from(self.open[slot]))
        for _ in range(times):
            self.commit(slot, partition, partition.stop)

    @precondition(lambda self: any(self.open[slot] for slot in self.alive()))
    @rule(data=st.data(), loss=st.sampled_from(Loss))
    def ends(self, data: st.DataObject, loss: Loss) -> None:
        """A worker that leaves or fails commits the heads of what it has open, and says a last word."""
        slot = self.pick(data, with_open=True)
        for partition in list(self.open[slot]):
            finished = data.draw(st.integers(0, partition.num_rows))
            if finished and partition in self.open[slot]:
                self.commit(slot, partition, partition.start + finished)
        undone = rows_of(self.dispatcher.to_redo(slot))
        assert len(undone) == len(set(undone))
        if any(partition not in self.open[slot] for partition in self.dispatcher.to_redo(slot)):
            assert self.progress(slot) == [], "it is given what it leaves behind"
        self.lose(slot, loss)

    def commit(self, slot: int, partition: Partition, stop: int) -> None:
        """As a worker does: what is there already is taken as it is, and the rest goes behind it."""
        chain: list[Partition] = []
        while (end := chain[-1].stop if chain else partition.start) < stop:
            chain.append(self.files.setdefault(end, part(end, stop)))
        self.told.append((slot, partition, chain))
        self.tell(slot, partition, chain)

    def tell(self, slot: int, partition: Partition, chain: list[Partition]) -> None:
        self.heard.update(chain)
        if partition in self.open[slot]:
            self.open[slot].remove(partition)
        for holder in self.dispatcher.committed(slot, partition, chain):
            self.open[holder].remove(partition)

    @precondition(lambda self: self.told and self.alive())
    @rule(data=st.data())
    def an_old_event_comes_again(self, data: st.DataObject) -> None:
        slot, partition, chain = data.draw(st.sampled_from(self.told))
        if partition not in self.open[slot]:  # else it is a new worker that has it, with events of its own
            self.tell(slot, partition, chain)

    @rule(data=st.data())
    def another_driver_writes(self, data: st.DataObject) -> None:
        """Behind what is in the cell, perhaps beyond what this run was asked for."""
        cell = data.draw(st.integers(0, self.num_rows // self.grid)) * self.grid
        start = cell
        while start in self.files:
            start = self.files[start].stop
        if start < cell + self.grid:
            self.files[start] = part(start, data.draw(st.integers(start + 1, cell + self.grid)))

    @precondition(lambda self: not self.given_up and len(self.files) > len(self.heard))
    @rule(data=st.data())
    def looks_around(self, data: st.DataObject) -> None:
        """A listing need not show files in the order in which they were made."""
        new = sorted(set(self.files.values()) - self.heard)
        found = data.draw(st.lists(st.sampled_from(new), unique=True, min_size=1))
        self.heard.update(found)
        for slot, partition in self.dispatcher.found(found):
            self.open[slot].remove(partition)

    @precondition(lambda self: self.alive() and not self.dispatcher.done)
    @rule(data=st.data(), loss=st.sampled_from(Loss))
    def is_lost(self, data: st.DataObject, loss: Loss) -> None:
        self.lose(self.pick(data), loss)

    def lose(self, slot: int, loss: Loss) -> None:
        for row in rows_of(self.open[slot]) if loss.value else ():
            self.failed_on.setdefault(row, set()).add(self.workers[slot].node)
        try:
            self.dispatcher.lost(slot, cause="bad luck", loss=loss)
        except GenerationFailedError:
            assert loss is not Loss.LEFT
            self.given_up = True
        else:
            self.open[slot].clear()
            self.workers[slot] = Worker(alive=False)

    @precondition(lambda self: not self.given_up and len(self.alive()) < len(self.workers))
    @rule(data=st.data())
    def is_replaced(self, data: st.DataObject) -> None:
        """On any node, perhaps the same one."""
        slot = data.draw(st.sampled_from([i for i, worker in enumerate(self.workers) if not worker.alive]))
        self.workers[slot] = self.new_worker(slot, data)

    @precondition(lambda self: not self.given_up and self.told_nodes)
    @rule(data=st.data())
    def nodes_come_and_go(self, data: st.DataObject) -> None:
        self.told_nodes = frozenset(data.draw(st.sets(st.sampled_from(sorted(self.nodes)))))
        self.dispatcher.note_nodes(self.told_nodes)

    @precondition(lambda self: not self.given_up and len(self.workers) < 6)
    @rule(data=st.data())
    def gets_room(self, data: st.DataObject) -> None:
        assert self.dispatcher.add_slot() == len(self.workers)
        self.workers.append(self.new_worker(len(self.workers), data))
        self.open.append([])

    @invariant()
    def every_row_is_pending_or_open_or_committed(self) -> None:
        if self.given_up:
            return
        slots = self.dispatcher.slots
        assert [slot.open for slot in slots] == self.open
        pending = Counter(rows_of([p for slot in slots for p in slot.pending]))
        pending.update(rows_of(list(self.dispatcher.returned)))
        opened = Counter(rows_of([p for slot in slots for p in slot.open]))
        held = {row for slot in slots for row in rows_of(slot.open)}
        committed = set(rows_of(list(self.heard)))
        for row in range(self.num_rows):
            if row in committed:
                assert row not in pending
            else:
                assert (pending[row], opened[row]) in ((1, 0), (0, 1), (0, 2)), row
        assert set(pending) | held <= set(range(self.num_rows))
        for partition in (p for slot in slots for p in slot.open):
            assert not set(rows_of([partition])) <= committed, "open, though nothing of it is left"
        assert all(len(slot.open) == len(set(slot.open)) for slot in slots)

    @invariant()
    def what_it_finds_by_rank_is_what_a_look_at_everything_finds(self) -> None:
        if self.given_up:
            return
        slots, now = self.dispatcher.slots, self.now
        longest = max((len(slot.pending) for slot in slots), default=0)
        fullest = self.dispatcher.fullest.last()
        if longest:
            assert fullest is not None
            assert -fullest[0][1] == next(i for i, slot in enumerate(slots) if len(slot.pending) == longest)
        else:
            assert fullest is None
        for number, own in enumerate(slots):
            assert self.dispatcher.stragglers.worth_copying(number, now) == slowest_elsewhere(slots, own, now)

    @invariant()
    def what_it_says_of_itself_is_so(self) -> None:
        if self.given_up:
            return
        slots = self.dispatcher.slots
        assert self.dispatcher.num_slots == len(self.workers)
        pending = sum(len(slot.pending) for slot in slots) + len(list(self.dispatcher.returned))
        assert self.dispatcher.num_pending == pending
        assert self.dispatcher.num_left == pending + sum(len(slot.open) for slot in slots)
        assert self.dispatcher.done == (self.dispatcher.num_left == 0)
        for slot, held in enumerate(self.open):
            assert self.dispatcher.open_rows(slot) == len(rows_of(held))
            assert self.dispatcher.to_redo(slot)[: len(held)] == held

    def teardown(self) -> None:
        """Whatever happened before: workers that live on finish the job, even a single one."""
        if not hasattr(self, "dispatcher") or self.given_up:
            return
        if not self.alive():
            self.workers[0] = Worker(node=min(self.nodes, default=""))
            self.dispatcher.placed(0, self.workers[0].node)
        while not self.dispatcher.done:
            moved = False
            self.now += 1.0
            for slot in self.alive():
                worker = self.workers[slot]
                worker.started = worker.finished = worker.given
                moved |= bool(self.progress(slot))
                for partition in list(self.open[slot]):
                    if partition in self.open[slot]:
                        self.commit(slot, partition, partition.stop)
                        moved = True
            assert moved, "what is left is given to nobody"
            self.every_row_is_pending_or_open_or_committed()
        assert set(range(self.num_rows)) <= set(rows_of(list(self.heard)))


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=80, stateful_step_count=30, derandomize=True, deadline=None)


# Who gets what.


def test_a_worker_gets_its_own_shard_in_order_until_its_window_is_full() -> None:
    d = dispatcher(cells(8), slots=2)
    assert report(d, 0) == cells(8)[:2]
    assert report(d, 1) == cells(8)[4:6]


def test_partitions_on_their_way_to_a_worker_count_as_unstarted() -> None:
    d = dispatcher(cells(8), slots=1)
    assert len(report(d, 0)) == 2
    assert report(d, 0) == []  # said before they arrived
    assert report(d, 0, started=1) == [cells(8)[2]]


def test_a_dry_worker_takes_from_the_tail_of_the_fullest_shard() -> None:
    d = dispatcher(cells(9), slots=3)
    for slot in (0, 1):
        report(d, slot, live_window=30)
    assert report(d, 0, started=30, live_window=10) == [cells(9)[8]]
    assert report(d, 1, started=30, live_window=10) == [cells(9)[7]]
    assert report(d, 2, live_window=10) == [cells(9)[6]]


def test_a_worker_that_is_not_dry_yet_leaves_other_shards_alone() -> None:
    d = dispatcher(cells(4), slots=2)
    assert report(d, 0, live_window=40) == [*cells(4)[:2]]
    assert report(d, 0, started=10, live_window=40) == []
    assert report(d, 0, started=11, live_window=40) == [cells(4)[3]]


def test_two_drivers_from_both_ends_meet_in_the_middle() -> None:
    forth, back = dispatcher(cells(9), slots=1), dispatcher(cells(9), slots=1, backwards=True)
    done: dict[str, list[Partition]] = {"forth": [], "back": []}
    started = 0
    while not (forth.done and back.done):
        for name, one, other in (("forth", forth, back), ("back", back, forth)):
            for partition in report(one, 0, started=started, live_window=10):
                one.committed(0, partition, [partition])
                assert other.found([partition]) == [], "both had it"
                done[name].append(partition)
        started += 10
    assert done == {"forth": cells(9)[:5], "back": cells(9)[:4:-1]}


def test_a_shard_that_is_worked_on_backwards_is_taken_from_at_its_low_end() -> None:
    d = dispatcher(cells(6), slots=2, backwards=True)
    assert report(d, 0, live_window=10) == [cells(6)[2]]
    assert report(d, 1, live_window=30) == cells(6)[5:2:-1]
    assert report(d, 1, started=30, live_window=10) == [cells(6)[0]]


def test_there_may_be_more_slots_than_partitions() -> None:
    d = dispatcher(cells(1), slots=3)
    assert d.num_slots == 3
    assert sum(len(report(d, slot)) for slot in range(3)) == 1


def test_a_slot_that_is_added_takes_from_the_others() -> None:
    d = dispatcher(cells(4), slots=1)
    report(d, 0, live_window=10)
    assert d.add_slot() == 1
    assert report(d, 1, live_window=10) == [cells(4)[3]]
    assert (d.num_slots, d.num_left, d.open_rows(0), d.open_rows(1)) == (2, 4, 10, 10)


# What is committed, by whomever.


def test_what_a_found_file_does_not_cover_is_given_out_again() -> None:
    d = dispatcher(cells(1), slots=2)
    [partition] = report(d, 0)
    assert d.committed(0, partition, [part(0, 4)]) == []
    assert not d.done
    assert report(d, 0, started=10) == [], "it is ending"
    assert report(d, 1) == [part(4, 10)]
    assert d.committed(1, part(4, 10), [part(4, 10)]) == []
    assert d.done


def test_a_found_file_that_covers_more_leaves_nothing() -> None:
    d = dispatcher([part(0, 5)], slots=1)
    [partition] = report(d, 0)
    d.committed(0, partition, [part(0, 10)])
    assert d.done


def test_files_of_others_are_not_generated_again() -> None:
    d = dispatcher(cells(4), slots=2)
    [opened] = report(d, 0, live_window=10)
    assert d.found([opened, part(10, 13), part(13, 20), part(20, 26)]) == [(0, opened)]
    assert report(d, 0, started=10) == [part(30, 40)]
    assert report(d, 1, live_window=10) == [part(26, 30)]


def test_a_partition_that_others_have_begun_stays_open_until_all_of_it_is_there() -> None:
    d = dispatcher(cells(1), slots=1)
    [partition] = report(d, 0)
    assert d.found([part(0, 4)]) == []
    assert d.open_rows(0) == 10
    assert d.found([part(4, 10)]) == [(0, partition)]
    assert d.done


def test_a_drop_and_the_commit_that_crossed_it_are_one() -> None:
    d = dispatcher(cells(2), slots=1)
    first, second = report(d, 0)
    assert d.found([first]) == [(0, first)]
    assert d.committed(0, first, [first]) == []
    assert not d.done
    d.committed(0, second, [second])
    assert d.done


# Slow workers. A clock that is advanced by hand.


def test_a_worker_that_stands_still_is_copied_and_whoever_is_second_is_told_to_drop_it() -> None:
    d = dispatcher(cells(2), slots=2)
    [mine], [theirs] = report(d, 0, live_window=10), report(d, 1, live_window=10)
    report(d, 1, started=10, finished=9, now=9.0)
    report(d, 0, started=10, finished=10, now=10.0)
    d.committed(0, mine, [mine])
    now, given = 10.0, list[Partition]()
    while not given:
        now += 1.0
        assert now < 60.0, "it waits for ever"
        report(d, 1, started=10, finished=9, now=now)
        given = report(d, 0, started=10, finished=10, now=now)
    assert given == [theirs]
    assert report(d, 0, started=10, finished=10, now=100.0) == [], "two have it, that is enough"
    assert d.num_left == 2
    assert d.committed(0, theirs, [theirs]) == [1]
    assert d.done
    assert d.committed(1, theirs, [theirs]) == []


def test_the_first_holder_may_win_all_the_same() -> None:
    d, theirs = copied()
    assert d.committed(1, theirs, [theirs]) == [0]
    assert d.done


def copied() -> tuple[Dispatcher, Partition]:
    """Slot 0 has a copy of what slot 1, which has stood still, was given first; nothing else is left."""
    d = dispatcher(cells(2), slots=2)
    [mine], [theirs] = report(d, 0, live_window=10), report(d, 1, live_window=10)
    d.committed(0, mine, [mine])
    assert report(d, 0, started=10, finished=10, now=1.0) == []
    assert report(d, 0, started=10, finished=10, now=100.0) == [theirs]
    return d, theirs


def test_a_copy_that_is_lost_leaves_the_partition_with_its_other_holder() -> None:
    d, theirs = copied()
    d.lost(0, cause="killed", loss=Loss.DIED)
    assert (d.open_rows(0), d.open_rows(1), d.num_left) == (0, 10, 1)
    d.lost(1, cause="killed", loss=Loss.DIED)
    assert report(d, 1) == [theirs]


def test_a_head_of_one_holder_leaves_the_rest_to_the_other() -> None:
    d, theirs = copied()
    assert d.committed(1, theirs, [part(10, 14)]) == []
    assert (d.open_rows(0), d.open_rows(1), d.num_left) == (10, 0, 1)
    assert d.to_redo(1) == [part(14, 20)]
    d.lost(0, cause="killed", loss=Loss.DIED)
    assert report(d, 0) == [part(14, 20)]


def test_what_is_behind_the_heads_that_a_worker_committed_is_to_be_redone_like_what_it_had_open() -> None:
    d = dispatcher(cells(3), slots=1)
    first, second = report(d, 0, live_window=20)
    d.committed(0, first, [part(0, 4)])
    assert d.to_redo(0) == [second, part(4, 10)]
    d.lost(0, cause="bad luck", loss=Loss.FAILED)
    assert d.to_redo(0) == []


def test_found_files_drop_a_partition_from_both_of_its_holders() -> None:
    d, theirs = copied()
    assert d.found([theirs]) == [(0, theirs), (1, theirs)]
    assert d.done


def test_a_copy_is_made_only_where_it_would_be_done_much_sooner() -> None:
    for speed, copied_at_once in ((0.9, False), (0.6, False), (0.4, True)):
        d = dispatcher(cells(4), slots=2)
        mine, _ = report(d, 0, live_window=20), report(d, 1, live_window=20)
        report(d, 1, started=20, finished=int(20 * speed), live_window=1, now=20.0)
        for partition in mine:
            d.committed(0, partition, [partition])
        # What is left there takes (20 - 20 * speed) / speed seconds, all of a partition here 10.
        given = report(d, 0, started=20, finished=20, now=20.0)
        assert bool(given) == copied_at_once, speed


def test_nobody_copies_before_any_row_has_ended() -> None:
    d = dispatcher(cells(1), slots=2)
    slot = next(slot for slot in (0, 1) if report(d, slot))
    assert report(d, 1 - slot, now=1e6) == []


def test_rows_that_were_dropped_are_no_work_that_is_left() -> None:
    d = dispatcher(cells(6), slots=2)
    mine, (theirs, _) = report(d, 0, live_window=30), report(d, 1, live_window=20)
    assert len(d.found(cells(6)[1:3] + cells(6)[4:])) == 3  # all but the first of each
    d.committed(0, mine[0], [mine[0]])
    for slot, finished in ((0, 10), (1, 9)):
        assert report(d, slot, started=30, finished=finished, live_window=10, now=10.0) == []
    # The other has one row left, and has stood still for longer than a whole partition takes here.
    assert report(d, 0, started=30, finished=10, live_window=10, now=24.0) == []
    assert report(d, 0, started=30, finished=10, live_window=10, now=26.0) == [theirs]


def test_a_worker_that_had_partitions_dropped_is_not_taken_for_a_slow_one() -> None:
    d = dispatcher(cells(8), slots=2)
    mine, theirs = report(d, 0, live_window=40), report(d, 1, live_window=40)
    assert len(d.found(theirs[:2])) == 2
    for slot in (0, 1):
        report(d, slot, started=40, finished=19, live_window=10, now=19.0)
    d.committed(1, theirs[2], [theirs[2]])  # 10 of its 19 rows, and 9 of the last partition
    for partition in mine:
        d.committed(0, partition, [partition])
    assert report(d, 0, started=40, finished=40, live_window=10, now=20.0) == []


def test_a_worker_that_has_finished_nothing_yet_is_expected_to_be_as_fast_as_a_middling_one() -> None:
    d = dispatcher(cells(3), slots=3)
    for slot in (0, 1, 2):
        report(d, slot, live_window=10)
    report(d, 0, started=10, finished=10, now=10.0)
    d.committed(0, cells(3)[0], [cells(3)[0]])
    d.lost(1, cause="killed", loss=Loss.DIED)
    assert report(d, 1, live_window=10, now=10.0) == [cells(3)[1]]
    slot = d.add_slot()
    assert report(d, slot, now=12.0) == []
    assert report(d, slot, now=1000.0) != []


@dataclass
class Machine:
    """A worker of a constant speed: rows in order. queue: what is left of its partitions."""

    rows_per_second: float
    stops_at: float = float("inf")
    queue: list[tuple[Partition, float]] = field(default_factory=list)
    finished: float = 0.0

    def work(self, seconds: float) -> list[Partition]:
        """Those of its partitions that it has ended."""
        budget, ended = self.rows_per_second * seconds, list[Partition]()
        while self.queue and budget > 1e-9:
            partition, left = self.queue[0]
            done = min(left, budget)
            budget, self.finished = budget - done, self.finished + done
            self.queue[0] = (partition, left - done)
            if left - done <= 1e-9:
                ended.append(self.queue.pop(0)[0])
        return ended


@dataclass
class Race:
    """Machines and a dispatcher in virtual time, a report a second each.

    first: who was given a partition first. copies: who was given one that somebody else had.
    """

    d: Dispatcher
    machines: list[Machine]
    window: int = 10
    now: float = 0.0
    first: dict[Partition, int] = field(default_factory=dict)
    copies: list[tuple[Partition, int]] = field(default_factory=list)
    won_by: dict[Partition, int] = field(default_factory=dict)

    def run(self) -> "Race":
        while not self.d.done:
            assert self.now < 10_000, "it never ends"
            for slot, machine in enumerate(self.machines):
                for partition in machine.work(1.0 if self.now < machine.stops_at else 0.0):
                    self.won_by.setdefault(partition, slot)
                    for holder in self.d.committed(slot, partition, [partition]):
                        held = self.machines[holder]
                        held.queue = [entry for entry in held.queue if entry[0] != partition]
                self.report(slot, machine)
            self.now += 1.0
        return self

    def report(self, slot: int, machine: Machine) -> None:
        unstarted = max(0, int(sum(rows for _, rows in machine.queue)) - self.window)
        for partition in report(
            self.d,
            slot,
            started=self.d.slots[slot].given_rows - unstarted,
            finished=int(machine.finished + 1e-6),
            live_window=self.window,
            now=self.now,
        ):
            machine.queue.append((partition, partition.num_rows))
            if partition in self.first:
                self.copies.append((partition, slot))
            self.first.setdefault(partition, slot)


def test_partitions_of_a_worker_that_is_ten_times_slower_are_finished_by_the_others() -> None:
    race = Race(dispatcher(cells(24), slots=4), [Machine(v) for v in (1.0, 1.0, 1.0, 0.1)]).run()
    slow = {partition for partition, slot in race.first.items() if slot == 3}
    assert {race.won_by[partition] for partition in slow} & {0, 1, 2}
    assert all(race.first[partition] == 3 for partition, _ in race.copies)
    # 240 rows at 3.1 rows/s are 77 s. The slow one alone would take 200 s for the two that it opens first.
    assert race.now < 110


def test_a_worker_that_stops_for_good_costs_little_more_than_its_open_partitions() -> None:
    machines = [Machine(1.0), Machine(1.0), Machine(1.0, stops_at=25.0)]
    race = Race(dispatcher(cells(12), slots=3), machines).run()
    assert {race.first[partition] for partition, _ in race.copies} == {2}
    assert race.now < 90


@pytest.mark.parametrize("window", [4, 10, 20])
@pytest.mark.parametrize(("slots", "partitions"), [(2, 5), (3, 7), (3, 8), (4, 9), (8, 17), (5, 24)])
def test_equal_workers_do_not_do_each_others_work_at_the_end(
    slots: int, partitions: int, window: int
) -> None:
    machines = [Machine(1.0) for _ in range(slots)]
    assert Race(dispatcher(cells(partitions), slots=slots), machines, window=window).run().copies == []


# Losses.


def test_what_a_lost_worker_had_goes_first_to_whoever_asks() -> None:
    d = dispatcher(cells(8), slots=2)
    given = report(d, 0)
    d.lost(0, cause="its node has left", loss=Loss.LEFT)
    assert report(d, 1) == [given[0], cells(8)[4]]
    assert report(d, 0) == [given[1], cells(8)[2]]


def on_nodes(*nodes: str, partitions: int = 8, failures: int = 3) -> Dispatcher:
    """A slot on each of the nodes, up."""
    d = dispatcher(cells(partitions), slots=len(nodes), failures=failures)
    d.note_nodes(frozenset(nodes))
    for slot, node in enumerate(nodes):
        d.placed(slot, node)
    return d


def replace(d: Dispatcher, slot: int, node: str) -> None:
    d.lost(slot, cause="illegal memory access", loss=Loss.FAILED)
    d.placed(slot, node)


def test_a_partition_that_failed_goes_to_another_node_next() -> None:
    d = on_nodes("bad", "good")
    first, *_ = report(d, 0, live_window=10)
    replace(d, 0, "bad")
    assert first not in report(d, 0, live_window=10), "the same GPU again"
    assert report(d, 1, live_window=10) == [first]


def test_failures_on_one_broken_node_are_one_nodes_failures() -> None:
    d = on_nodes("bad", "good", partitions=100)
    started = 0
    for _ in range(20):
        assert report(d, 0)
        replace(d, 0, "bad")
    while not d.done:
        given = report(d, 1, started=started)
        started += 10 * len(given)
        for partition in given:
            d.committed(1, partition, [partition])


def test_a_partition_that_fails_on_as_many_nodes_as_are_allowed_ends_the_job() -> None:
    d = on_nodes("a", "b", "c", "d", partitions=4)
    [poison] = report(d, 0, live_window=10)
    replace(d, 0, "a")
    assert report(d, 1, live_window=10) == [poison]
    replace(d, 1, "b")
    assert report(d, 2, live_window=10) == [poison]
    with pytest.raises(GenerationFailedError, match=r"rows 0\.\.9 failed 3 times .*nodes that failed: 3;"):
        replace(d, 2, "c")


def test_with_fewer_nodes_than_failures_are_allowed_each_failure_counts_once_all_nodes_have_failed() -> None:
    d = on_nodes("a", "b", partitions=2)
    [poison] = report(d, 0, live_window=10)
    replace(d, 0, "a")
    assert report(d, 1, live_window=10) == [poison]
    replace(d, 1, "b")
    assert report(d, 0, live_window=10) == [poison], "no node is left that has not tried it"
    with pytest.raises(GenerationFailedError, match="nodes that failed: 2;"):
        replace(d, 0, "a")


def test_a_partition_that_only_one_node_ever_works_on_ends_the_job_too() -> None:
    d = on_nodes("poisoned", "taken by others", partitions=1)
    assert losses_until_the_job_ends(d, Loss.FAILED) == 9


def test_a_partition_waits_for_another_node_only_while_somebody_works_there() -> None:
    d = on_nodes("bad", "good", partitions=2)
    [first], [second] = report(d, 0, live_window=10), report(d, 1, live_window=10)
    d.committed(1, second, [second])
    replace(d, 0, "bad")
    assert report(d, 0, live_window=10) == []
    d.lost(1, cause="its node has left", loss=Loss.LEFT)
    assert report(d, 0, live_window=10) == [first]


def test_the_rest_of_a_partition_stays_away_from_the_nodes_on_which_it_failed() -> None:
    d = on_nodes("bad", "good")
    first, *_ = report(d, 0, live_window=10)
    d.found([part(0, 4)])
    replace(d, 0, "bad")
    assert part(4, 10) not in report(d, 0)
    assert first not in report(d, 0, started=20)
    assert part(4, 10) in report(d, 1)


def test_what_a_worker_leaves_behind_its_heads_goes_to_another_node() -> None:
    d = on_nodes("bad", "good")
    first, *_ = report(d, 0, live_window=10)
    d.committed(0, first, [part(0, 4)])
    replace(d, 0, "bad")
    assert part(4, 10) not in report(d, 0)
    assert part(4, 10) in report(d, 1)


def test_a_replacement_is_not_as_slow_as_the_worker_before_it() -> None:
    d = dispatcher(cells(2), slots=2)
    [mine], [theirs] = report(d, 0, live_window=10), report(d, 1, live_window=10)
    report(d, 0, started=10, finished=10, now=10.0)
    d.committed(0, mine, [mine])
    d.lost(1, cause="stood still", loss=Loss.FAILED)
    assert report(d, 1, live_window=10, now=100.0) == [theirs]
    assert report(d, 0, started=10, finished=10, now=101.0) == []
    assert report(d, 0, started=10, finished=10, now=116.0) == [theirs]


def test_work_that_comes_back_at_the_very_end_is_taken_by_idle_workers() -> None:
    d = dispatcher(cells(2), slots=2)
    for slot in (0, 1):
        report(d, slot)
    d.committed(0, cells(2)[0], [cells(2)[0]])
    assert report(d, 0, started=10) == []
    d.lost(1, cause="killed", loss=Loss.DIED)
    assert report(d, 0, started=10) == [cells(2)[1]]
    d.committed(0, cells(2)[1], [cells(2)[1]])
    assert d.done


@pytest.mark.parametrize("loss", Loss)
def test_an_idle_worker_that_dies_at_the_end_is_no_failure(loss: Loss) -> None:
    d = dispatcher(cells(1), slots=4)
    slot = next(slot for slot in range(4) if report(d, slot))
    for idle in set(range(4)) - {slot}:
        d.lost(idle, cause="spot notice", loss=loss)
        assert d.num_pending == 0, "nothing to replace it for"
    d.lost(slot, cause="spot notice", loss=loss)
    assert d.num_pending == 1
    assert report(d, slot) == cells(1)


def test_a_worker_lost_when_all_is_done_is_no_failure() -> None:
    d = dispatcher(cells(1), slots=1)
    report(d, 0)
    d.committed(0, cells(1)[0], cells(1))
    for _ in range(5):
        d.lost(0, cause="late", loss=Loss.FAILED)
    assert d.done


def losses_until_the_job_ends(d: Dispatcher, loss: Loss, *, at_most: int = 100) -> int:
    """How often its only worker can be lost with work open."""
    node = d.slots[0].node
    for number in range(1, at_most + 1):
        d.placed(0, node)
        assert report(d, 0)
        try:
            d.lost(0, cause="out of memory", loss=loss)
        except GenerationFailedError:
            return number
    return at_most + 1


def test_a_partition_that_fails_too_often_ends_the_job_with_the_cause_and_the_key_to_change() -> None:
    d = dispatcher(cells(3), slots=1, failures=2)
    report(d, 0)
    d.lost(0, cause="out of memory", loss=Loss.FAILED)
    report(d, 0)
    with pytest.raises(
        GenerationFailedError,
        match=r"rows 0\.\.9 failed 2 times \(cluster\.max_failures_per_partition is 2;.*out of memory",
    ):
        d.lost(0, cause="out of memory", loss=Loss.FAILED)


def test_a_death_without_a_word_counts_a_quarter_and_leaving_nothing() -> None:
    assert losses_until_the_job_ends(dispatcher(cells(3), slots=1), Loss.FAILED) == 3
    assert losses_until_the_job_ends(dispatcher(cells(3), slots=1), Loss.DIED) == 12
    assert 59 <= losses_until_the_job_ends(dispatcher(cells(3), slots=1), Loss.NODE) <= 61
    assert losses_until_the_job_ends(dispatcher(cells(3), slots=1), Loss.LEFT) == 101


def test_leaving_is_never_what_ends_a_job() -> None:
    d = dispatcher(cells(1), slots=1, failures=1)
    for _ in range(3):
        report(d, 0)
        d.lost(0, cause="killed", loss=Loss.DIED)
    report(d, 0)
    d.lost(0, cause="spot notice", loss=Loss.LEFT)
    report(d, 0)
    with pytest.raises(GenerationFailedError, match="failed 4 times"):
        d.lost(0, cause="killed", loss=Loss.DIED)


def test_how_often_a_partition_has_failed_is_forgotten_once_it_is_committed() -> None:
    held = []
    for fails in (False, True):
        d = dispatcher(cells(200), slots=1, failures=3)
        for partition in cells(200):
            given = report(d, 0, live_window=1)
            if fails:
                d.placed(0, f"node {partition.start}")
                d.lost(0, cause="no memory", loss=Loss.DIED)
                given = report(d, 0, live_window=1)
            assert given == [partition]
            d.committed(0, partition, [partition])
            d.slots[0].clear()
        held.append(held_by(d))
        del held[-1]["bytes"]  # a dict keeps the room of what was in it
    assert growth(held) == {}
