"""What is concluded from a worker's silence, and what is added up over workers that come and go."""

from collections.abc import Set
from dataclasses import replace
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.coordinator.fleet import Fleet, progress_seconds
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.worker.events import Progress

STALL, START = 60.0, 300.0


def fleet_of(slots: int = 1, *, now: float = 0.0) -> Fleet:
    """Workers that have been asked for."""
    fleet = Fleet(stall_timeout_seconds=STALL, start_timeout_seconds=START)
    for slot in range(slots):
        fleet.request(slot, now)
    return fleet


def ready_fleet(slots: int = 1, *, now: float = 0.0) -> Fleet:
    fleet = fleet_of(slots, now=now)
    for slot in range(slots):
        fleet.place(slot, now)
        fleet.get_ready(slot, now)
    return fleet


def report(
    *,
    tokens: int,
    steps: int = 1,
    rows: int = 0,
    doing: Literal["generating", "storing", "nothing"] = "generating",
) -> Progress:
    return Progress(
        tally=Tally(rows=rows, rejected={"empty": 1}, user_tokens=10 * rows),
        engine=EngineStats(steps=steps, generated_tokens=tokens),
        started=rows,
        live_window=8,
        doing=doing,
    )


def overdue(fleet: Fleet, now: float, *, heard: Set[int] = frozenset()) -> list[int]:
    return [slot for slot, _ in fleet.overdue(now, heard=heard)]


@given(st.sets(st.integers(0, 3)), st.floats(STALL + 1, 50 * STALL))
def test_who_has_just_told_something_may_have_more_to_tell_and_is_not_given_up_for_an_hour(
    heard: set[int], now: float
) -> None:
    fleet = ready_fleet(4)
    assert overdue(fleet, now, heard=heard) == sorted({0, 1, 2, 3} - heard)
    assert overdue(fleet, now) == [0, 1, 2, 3], "once nothing comes from them any more"
    assert overdue(fleet, now + 3600.0, heard=heard) == [0, 1, 2, 3]


def test_what_lost_engines_did_counts_for_the_use_of_all() -> None:
    fleet = ready_fleet(2)
    for slot in (0, 1):
        fleet.progress(
            slot, replace(report(tokens=1), engine=EngineStats(steps=slot + 1)), has_work=True, now=1.0
        )
    fleet.lose(0, rows_to_redo=0, now=2.0)
    fleet.progress(
        1, replace(report(tokens=1), engine=EngineStats(steps=5), storage_retries=2), has_work=True, now=4.0
    )
    fleet.request(0, 3.0)
    fleet.progress(
        0, replace(report(tokens=1), engine=EngineStats(steps=3), storage_retries=1), has_work=True, now=4.0
    )
    assert fleet.engines == EngineStats(steps=9)
    assert fleet.storage_retries == 3


def test_an_engine_that_reads_or_writes_tokens_is_never_overdue() -> None:
    fleet = ready_fleet()
    for tokens in range(10):
        fleet.progress(0, report(tokens=tokens), has_work=True, now=tokens * STALL)
        assert overdue(fleet, (tokens + 1) * STALL) == []


def test_an_engine_that_steps_without_a_token_stands_still() -> None:
    fleet = ready_fleet()
    fleet.progress(0, report(tokens=7), has_work=True, now=1.0)
    for now in (20.0, 40.0, 61.0):
        fleet.progress(0, report(tokens=7, steps=int(now), rows=int(now)), has_work=True, now=now)
        assert overdue(fleet, now) == []
    [(slot, cause)] = fleet.overdue(61.5)
    assert slot == 0
    assert cause == "no token from its engine for 60 s (cluster.stall_timeout_seconds)"


def test_a_rule_that_is_slow_is_no_stall_and_one_that_hangs_is_named() -> None:
    fleet = ready_fleet()
    for decided in range(10):
        slow = replace(report(tokens=7), decided=decided, awaited_rule="mine:slow")
        fleet.progress(0, slow, has_work=True, now=decided * STALL)
        assert overdue(fleet, (decided + 1) * STALL) == []
    [(_, cause)] = fleet.overdue(10 * STALL + 1)
    assert cause.startswith("the acceptance rule mine:slow has taken more than 60 s for one message")


def test_a_process_that_falls_silent_may_be_held_up_by_a_rule_of_the_users_own() -> None:
    fleet = Fleet(stall_timeout_seconds=STALL, start_timeout_seconds=START, own_rules=["mine:regex"])
    fleet.request(0, 0.0)
    fleet.get_ready(0, 0.0)
    [(_, cause)] = fleet.overdue(STALL + 1)
    assert cause.endswith("a rule holds the process up: mine:regex")


def test_a_worker_that_says_nothing_at_all_stands_still() -> None:
    fleet = ready_fleet(2)
    fleet.progress(1, report(tokens=1), has_work=True, now=50.0)
    assert overdue(fleet, 60.0) == []
    assert overdue(fleet, 60.5) == [0]


def test_a_worker_without_work_may_rest() -> None:
    fleet = ready_fleet()
    for minute in range(100):
        fleet.progress(0, report(tokens=3, doing="nothing"), has_work=False, now=60.0 * minute)
    assert overdue(fleet, 60.0 * 100) == []


def test_a_worker_that_does_nothing_although_it_was_given_work_stands_still() -> None:
    fleet = ready_fleet()
    for now in (1.0, 31.0, 61.0):
        fleet.progress(0, report(tokens=3, doing="nothing"), has_work=True, now=now)
    assert overdue(fleet, 61.5) == [0]


def test_who_was_idle_for_long_has_all_the_time_for_its_first_step() -> None:
    fleet = ready_fleet()
    fleet.progress(0, report(tokens=3, doing="nothing"), has_work=False, now=1000.0)
    fleet.progress(0, report(tokens=3, doing="nothing"), has_work=True, now=1030.0)
    assert overdue(fleet, 1060.0) == []
    assert overdue(fleet, 1060.5) == [0]


def test_waiting_for_storage_is_no_stall() -> None:
    fleet = ready_fleet()
    for now in range(0, 1000, 50):
        fleet.progress(0, report(tokens=3, doing="storing"), has_work=True, now=float(now))
        assert overdue(fleet, now + STALL) == []


def test_after_a_wait_for_storage_the_first_step_has_all_its_time() -> None:
    fleet = ready_fleet()
    for now in range(0, 1001, 50):
        fleet.progress(0, report(tokens=3, doing="storing"), has_work=True, now=float(now))
    fleet.progress(0, report(tokens=3, doing="generating"), has_work=True, now=1001.0)
    fleet.progress(0, report(tokens=3, doing="generating"), has_work=True, now=1030.0)
    assert overdue(fleet, 1001.0 + STALL) == []
    assert overdue(fleet, 1001.5 + STALL) == [0]


def test_a_worker_that_stores_and_is_not_heard_any_more_is_overdue_as_others_are() -> None:
    fleet = ready_fleet()
    fleet.progress(0, report(tokens=3, doing="storing"), has_work=True, now=100.0)
    assert overdue(fleet, 100.0 + STALL) == []
    [(_, cause)] = fleet.overdue(100.5 + STALL)
    assert cause == f"no report from it for {STALL:g} s (cluster.stall_timeout_seconds)"


def test_an_engine_that_does_not_come_up_is_overdue_by_its_own_time() -> None:
    fleet = fleet_of()
    fleet.place(0, 500.0)
    assert overdue(fleet, 500.0 + START) == []
    [(_, cause)] = fleet.overdue(500.5 + START)
    assert cause == "its engine was not up after 300 s (cluster.start_timeout_seconds)"


def test_a_start_that_takes_longer_than_a_stall_may_is_no_stall() -> None:
    fleet = fleet_of()
    fleet.place(0, 0.0)
    assert overdue(fleet, STALL + 1) == []
    fleet.get_ready(0, START)
    assert overdue(fleet, START + STALL) == []


def test_who_waits_for_a_node_is_not_overdue() -> None:
    assert overdue(fleet_of(), 1e9) == []


def test_a_replacement_has_its_own_time() -> None:
    fleet = ready_fleet()
    assert overdue(fleet, 61.0) == [0]
    fleet.lose(0, rows_to_redo=100, now=61.0)
    assert overdue(fleet, 1e9) == []
    fleet.request(0, 61.0)
    fleet.place(0, 100.0)
    fleet.get_ready(0, 200.0)
    fleet.progress(0, report(tokens=0), has_work=True, now=230.0)  # as few as its predecessor at first
    assert overdue(fleet, 290.0) == []


def test_finished_rows_that_are_in_no_file_are_lost_with_their_worker() -> None:
    fleet = ready_fleet(2)
    fleet.progress(0, report(tokens=5, rows=12), has_work=True, now=1.0)
    fleet.progress(1, report(tokens=5, rows=3), has_work=True, now=1.0)
    fleet.commit(0, 8)
    assert fleet.unwritten_rows == 4 + 3
    assert fleet.lose(0, rows_to_redo=100, now=2.0) == 4
    assert (fleet.lost, fleet.lost_rows, fleet.unwritten_rows) == (1, 4, 3)
    fleet.request(0, 2.0)
    assert fleet.lose(0, rows_to_redo=100, now=3.0) == 0
    assert (fleet.lost, fleet.lost_rows) == (2, 4)


def test_more_rows_in_files_than_were_finished_here_are_no_debt() -> None:
    fleet = ready_fleet()
    fleet.progress(0, report(tokens=5, rows=3), has_work=True, now=1.0)
    fleet.commit(0, 10)  # it found somebody else's file
    assert fleet.unwritten_rows == 0
    assert fleet.lose(0, rows_to_redo=100, now=2.0) == 0


def test_what_a_worker_was_told_to_drop_is_neither_unwritten_nor_lost_with_it() -> None:
    fleet = ready_fleet()
    fleet.progress(0, replace(report(tokens=5, rows=12), dropped_rows=7), has_work=True, now=1.0)
    fleet.commit(0, 4)
    assert fleet.unwritten_rows == 1
    assert fleet.lose(0, rows_to_redo=100, now=2.0) == 1


def test_attempts_of_lost_workers_still_count() -> None:
    fleet = ready_fleet(2)
    fleet.progress(0, report(tokens=5, rows=12), has_work=True, now=1.0)
    fleet.progress(1, report(tokens=5, rows=3), has_work=True, now=1.0)
    fleet.lose(0, rows_to_redo=100, now=2.0)
    fleet.request(0, 2.0)
    fleet.progress(0, report(tokens=1, rows=1), has_work=True, now=3.0)
    assert fleet.tally == Tally(rows=16, rejected={"empty": 3}, user_tokens=160)


def test_workers_are_counted_by_how_far_they_are() -> None:
    fleet = fleet_of(3)
    assert (len(fleet), fleet.num("waiting"), fleet.num("starting"), fleet.ready) == (3, 3, 0, [])
    fleet.place(0, 1.0)
    fleet.place(1, 1.0)
    assert (fleet.num("waiting"), fleet.num("starting"), fleet.ready) == (1, 2, [])
    fleet.get_ready(1, 2.0)
    fleet.get_ready(2, 5.0)
    assert (fleet.num("waiting"), fleet.num("starting"), fleet.ready) == (0, 1, [1, 2])
    assert fleet.first_ready == 2.0


def test_a_slot_whose_worker_is_to_start_later_is_wanted_and_overdue_for_nothing() -> None:
    fleet = ready_fleet(2)
    fleet.lose(0, rows_to_redo=0, now=1.0)
    fleet.expect(0, 1.0)
    assert (fleet.num("delayed"), fleet.num_wanted, fleet.waiting) == (1, 2, [])
    fleet.request(0, 10 * START)
    assert (fleet.num("delayed"), fleet.num_wanted, fleet.waiting) == (0, 2, [0])


def test_a_slot_whose_worker_is_not_replaced_waits_for_nothing() -> None:
    fleet = ready_fleet(2)
    fleet.lose(0, rows_to_redo=100, now=1.0)
    assert (fleet.num("waiting"), fleet.num("starting"), fleet.ready) == (0, 0, [1])
    fleet.request(0, 2.0)
    assert fleet.num("waiting") == 1


def test_a_replacement_was_not_told_to_stop() -> None:
    fleet = ready_fleet()
    fleet.leave(0)
    fleet.lose(0, rows_to_redo=100, now=1.0)
    fleet.request(0, 1.0)
    assert not fleet[0].leaving


def test_workers_that_are_wanted_are_those_that_were_asked_for_and_are_not_lost() -> None:
    fleet = ready_fleet(3)
    fleet.lose(0, rows_to_redo=100, now=1.0)
    fleet.lose(1, rows_to_redo=100, now=1.0)
    fleet.request(1, 1.0)
    assert (len(fleet), fleet.num_wanted) == (3, 2)


def test_the_more_workers_there_are_the_more_rarely_each_tells_of_its_progress() -> None:
    seconds = [progress_seconds(n, stall_timeout_seconds=600) for n in (4, 40, 400, 10_000)]
    assert seconds == [2.0, 2.0, 20.0, 50.0]
    assert progress_seconds(1000, stall_timeout_seconds=60) == 6.0, "or it would be taken for a stall"
