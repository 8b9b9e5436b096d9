"""When actors start, and when a run gives up on its engines. The clock is a number."""

import random
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.staffing import Pauses, Staffing

TIMEOUT = 1800.0
CLUSTER = frozenset({"a", "b", "c"})


def staffing(*, slots: int = 1, pauses: Pauses | None = None, seed: int = 0) -> Staffing:
    made = Staffing(start_timeout_seconds=TIMEOUT, now=0.0, draw=random.Random(seed), pauses=pauses)
    made.add(range(slots), 0.0)
    return made


def due(s: Staffing, now: float, present: frozenset[str] = CLUSTER) -> Iterator[int]:
    """Starts everything that is due."""
    while (slot := s.next_due(now)) is not None:
        s.start(slot, present, now)
        yield slot


def beside_one_that_is_up() -> Staffing:
    """Slot 0 has been started, and the engine of slot 1 is up."""
    s = staffing(slots=2)
    assert list(due(s, 0.0)) == [0, 1]
    s.placed(1, {"other": "other"}, 0.0)
    s.ready(1, 0.0)
    return s


def next_start(s: Staffing, now: float, *, step: float = 1.0) -> float:
    """When the next actor is started, which is done then."""
    while not list(due(s, now)):
        now += step
        assert now < 1e6, "it never starts again"
    return now


def fails(s: Staffing, slot: int, now: float, *, node: str = "a", cause: str = "no CUDA") -> float:
    s.placed(slot, {node: node}, now)
    return s.ended(slot, cause=cause, loss=Loss.FAILED, now=now)[0]


def hopeless(s: Staffing, now: float, *, up: int = 0) -> str | None:
    return s.why_hopeless(now, up=up, describe=lambda: "2 actors want a GPU each")


def test_a_few_actors_start_at_once_and_many_are_spread_over_two_minutes() -> None:
    assert list(due(staffing(slots=16), 0.0)) == list(range(16))
    s, started = staffing(slots=500), list[int]()
    at_once = list(due(s, 0.0))
    for second in range(1, 121):
        now = list(due(s, float(second)))
        assert len(now) <= 16
        started += now
    assert at_once == list(range(16))
    assert started == list(range(16, 500))


def test_pauses_before_a_slots_next_start_grow_and_a_file_ends_that() -> None:
    s, now, waits = beside_one_that_is_up(), 0.0, []
    for _ in range(7):
        hopeless(s, now, up=1)
        waits.append(fails(s, 0, now))
        now = next_start(s, now)
    bounds = [10, 30, 120, 300, 600, 600, 600]
    assert all(0.75 * b <= wait <= 1.25 * b for wait, b in zip(waits, bounds, strict=True))
    s.placed(0, {"a": "a"}, now)
    s.ready(0, now)
    s.committed(0, now)
    assert s.ended(0, cause="killed", loss=Loss.DIED, now=now)[0] == 0.0
    assert list(due(s, now)) == [0]


@given(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=40))
def test_while_no_actor_is_up_or_starts_the_next_one_starts_within_half_a_minute(
    slots: int, deaths: list[int]
) -> None:
    s, now = staffing(slots=slots), 0.0
    alive = list(due(s, now))
    for death in deaths:
        hopeless(s, now, up=1)
        fails(s, alive.pop(death % len(alive)), now)
        if not alive:
            assert not list(due(s, now))
            alive += due(s, now := now + 30)
        assert alive


def test_pauses_differ_between_slots() -> None:
    s = staffing(slots=8)
    assert len(list(due(s, 0.0))) == 8
    assert len({fails(s, slot, 0.0) for slot in range(8)}) == 8


def test_an_actor_that_leaves_on_notice_at_every_start_waits_too() -> None:
    s, now, waits = beside_one_that_is_up(), 0.0, []
    for _ in range(3):
        s.placed(0, {"a": "a"}, now)
        waits.append(s.ended(0, cause="on notice", loss=Loss.LEFT, now=now)[0])
        now = next_start(s, now)
    assert waits[0] > 5
    assert waits[2] > 60


def test_many_actors_that_are_lost_at_once_do_not_come_back_at_once() -> None:
    s = staffing(slots=400)
    for second in range(121):
        for slot in due(s, float(second)):
            s.placed(slot, {f"n{slot}": "h"}, float(second))
            s.ready(slot, float(second))
            s.committed(slot, float(second))
    waits = [s.ended(slot, cause="the store", loss=Loss.FAILED, now=500.0)[0] for slot in range(400)]
    assert waits[:16] == [0.0] * 16
    assert 60 < max(waits) <= 120


@given(st.lists(st.sampled_from(Loss), min_size=1, max_size=30), st.integers(0, 5))
def test_whatever_happens_to_a_slot_it_is_started_again(losses: list[Loss], seed: int) -> None:
    s, now = staffing(seed=seed), 0.0
    for loss in losses:
        now = next_start(s, now, step=60.0)
        hopeless(s, now, up=1)  # some other engine is up
        s.placed(0, {"a": "a"}, now)
        wait, _ = s.ended(0, cause="bad luck", loss=loss, now=now)
        assert wait <= 750


# Giving up.


def test_one_machine_whose_engine_never_loads_hears_it_after_three_starts() -> None:
    s, now, here = staffing(), 0.0, frozenset({"box"})
    for number in range(3):
        while not list(due(s, now, here)):
            now += 1.0
        assert hopeless(s, now) is None
        now += 20.0
        fails(s, 0, now, node="box", cause="out of memory")
        assert (hopeless(s, now) is not None) == (number == 2)
    assert now < 150
    told = hopeless(s, now)
    assert told is not None
    assert "The last cause, 3 times on box: out of memory." in told


def test_eight_gpus_of_one_machine_are_all_tried_before_that() -> None:
    s, now, here, starts = staffing(slots=8), 0.0, frozenset({"box"}), 0
    while hopeless(s, now) is None:
        for slot in list(due(s, now, here)):
            starts += 1
            fails(s, slot, now + 5, node="box")
        now += 5.0
    assert 8 < starts <= 24
    assert now < 90


def test_a_broken_node_that_fails_at_once_ends_nothing_while_others_load() -> None:
    s, now = staffing(slots=3), 0.0
    for slot in due(s, now):
        s.placed(slot, {"abc"[slot]: "abc"[slot]}, now)
    for _ in range(5):
        s.ended(0, cause="no mount", loss=Loss.FAILED, now=now)
        assert hopeless(s, now) is None
        now = next_start(s, now)
        s.placed(0, {"a": "a"}, now)
    assert hopeless(s, now) is None


def test_a_hub_that_refuses_for_ten_minutes_ends_nothing() -> None:
    s, now = staffing(slots=4), 0.0
    while now < 600:
        for slot in list(due(s, now)):
            fails(s, slot, now, node="abc"[slot % 3], cause="429 Client Error: Too Many Requests")
        assert hopeless(s, now) is None
        now += 1.0
    assert next_start(s, now) < 600 + 800


def test_no_engine_anywhere_for_the_start_timeout_ends_the_run_with_the_causes() -> None:
    s, now = staffing(slots=2), 0.0
    while hopeless(s, now) is None:
        for slot in list(due(s, now)):
            fails(s, slot, now, node="ab"[slot], cause=f"503 Server Error on {slot}")
        now += 1.0
    assert TIMEOUT < now < TIMEOUT + 10
    told = hopeless(s, now)
    assert told is not None
    assert told.startswith("no engine was up for 1800 s (cluster.start_timeout_seconds). The last cause, ")


def test_an_engine_that_loads_when_the_time_is_over_is_waited_for_and_no_other_is_started() -> None:
    s = staffing(slots=2)
    assert list(due(s, 0.0)) == [0, 1]
    s.placed(0, {"a": "a"}, TIMEOUT - 5)
    fails(s, 1, TIMEOUT - 5, node="b")
    assert hopeless(s, TIMEOUT + 100) is None
    assert s.next_due(TIMEOUT + 100) is None
    s.ready(0, TIMEOUT + 100)
    assert hopeless(s, TIMEOUT + 200, up=1) is None
    assert s.next_due(TIMEOUT + 200) == 1


def test_without_any_place_what_is_wanted_is_told() -> None:
    s = staffing()
    assert list(due(s, 0.0)) == [0]
    assert hopeless(s, TIMEOUT) is None
    assert hopeless(s, TIMEOUT + 1) == (
        "no actor could be placed for 1800 s (cluster.start_timeout_seconds): 2 actors want a GPU each"
    )


def test_once_an_engine_was_up_failing_starts_are_waited_out() -> None:
    s, now = staffing(), 0.0
    assert list(due(s, now)) == [0]
    s.placed(0, {"a": "a"}, now)
    s.ready(0, now)
    assert hopeless(s, now, up=1) is None
    s.ended(0, cause="killed", loss=Loss.DIED, now=now)
    for _ in range(4):
        now = next_start(s, now)
        fails(s, 0, now)
        assert hopeless(s, now) is None


def refuse_all(s: Staffing, until: float) -> None:
    """Every start fails for a hub that refuses all nodes."""
    for second in range(int(until)):
        for slot in due(s, float(second), frozenset()):
            fails(s, slot, second + 0.5, node=f"n{slot}", cause="429 Too Many Requests")


def test_when_a_hub_answers_again_no_slot_waits_any_longer() -> None:
    s = staffing(slots=40)
    refuse_all(s, 600.0)
    now, up = 600.0, list[int]()
    while not up:
        up, now = list(due(s, now)), now + 1
    s.ready(up[0], now)
    started = [slot for second in range(15) for slot in due(s, now + second, frozenset())]
    assert len(started) >= 38


def test_a_hub_that_refuses_all_nodes_is_no_fault_of_theirs() -> None:
    s = staffing(slots=40)
    refuse_all(s, 600.0)
    nodes = frozenset(f"n{slot}" for slot in range(40))
    assert len(s.nodes.choose_avoided(0, nodes, 600.0)) == 0


def test_what_fails_on_one_node_alone_is_its_fault_though_it_may_pass() -> None:
    s, now = staffing(slots=2), 0.0
    for slot in due(s, now):
        fails(s, slot, now, node="a", cause="ConnectionError")
    assert s.nodes.choose_avoided(0, CLUSTER, 1.0) == {"a"}


def test_a_node_that_an_outage_keeps_from_starting_is_tried_soon_after_it() -> None:
    s, now, pauses = beside_one_that_is_up(), 0.0, []
    for _ in range(12):
        hopeless(s, now, up=1)
        s.placed(0, {"a": "a"}, now)
        _, paused = s.ended(0, cause="ConnectionError", loss=Loss.FAILED, now=now)
        pauses += [node.seconds for node in paused]
        now = next_start(s, now)
    assert len(pauses) > 5
    assert max(pauses) < 400


# Nodes.


def fails_on(s: Staffing, slot: int, now: float, nodes: str) -> list[str]:
    """An engine over several nodes fails. Returns those that are left alone from now on."""
    s.placed(slot, {node: f"host-{node}" for node in nodes}, now)
    return [node.host for node in s.ended(slot, cause="NCCL error", loss=Loss.FAILED, now=now)[1]]


def test_the_nodes_of_an_engine_over_several_share_the_blame_so_that_the_broken_one_shows() -> None:
    s, now, paused = staffing(), 0.0, list[str]()
    for nodes in ("ab", "bc", "bd", "eb"):
        now = next_start(s, now)
        assert paused == []
        paused = fails_on(s, 0, now, nodes)
    assert paused == ["host-b"]


def test_an_engine_over_several_nodes_is_left_as_many_as_it_needs() -> None:
    s, now = staffing(), 0.0
    for _ in range(4):
        now = next_start(s, now)
        fails_on(s, 0, now, "ab")
    assert s.nodes.left_alone() == ("host-a", "host-b")
    assert s.start(0, frozenset("ab"), now) == frozenset()
    assert s.start(0, frozenset("abc"), now + 1) < {"a", "b"}


def test_a_slot_on_a_broken_node_goes_elsewhere_and_the_node_is_tried_again_later() -> None:
    s, now = staffing(), 0.0
    for _ in range(2):
        now = next_start(s, now)
        fails(s, 0, now)
    while s.next_due(now) is None:
        now += 1.0
    avoided = s.start(0, CLUSTER, now)
    assert avoided == {"a"}
    assert not s.is_to_ask_again(0, now)
    assert s.is_to_ask_again(0, now + 80), "it still waits for a place, and the pause is over"
    s.withdraw(0)
    assert s.start(0, CLUSTER, now + 80) == frozenset()


def with_a_node_that_is_paused_at(now: float) -> Staffing:
    """Slot 0 was requested at 0 and waits; the actors of others have failed on node a at `now`."""
    s = staffing(slots=1 + 2)
    assert list(due(s, 0.0)) == [0, 1, 2]
    for slot in (1, 2):
        assert not s.is_to_ask_again(0, now)
        fails(s, slot, now)
    assert s.nodes.left_alone() == ("a",)
    return s


def test_an_actor_that_waited_before_a_node_was_left_alone_is_asked_for_again_and_avoids_it() -> None:
    s = with_a_node_that_is_paused_at(100.0)
    assert s.is_to_ask_again(0, 105.0)
    s.withdraw(0)
    assert s.start(0, CLUSTER, 105.0) == {"a"}
    assert not s.is_to_ask_again(0, 110.0), "once is enough"


def test_where_no_other_node_is_left_the_actor_that_waits_is_asked_for_once() -> None:
    s = with_a_node_that_is_paused_at(100.0)
    assert s.is_to_ask_again(0, 105.0)
    s.withdraw(0)
    assert s.start(0, frozenset("a"), 105.0) == frozenset()
    assert not s.is_to_ask_again(0, 110.0)


def test_an_actor_that_got_its_place_on_a_node_during_its_pause_does_not_start_there() -> None:
    s = with_a_node_that_is_paused_at(100.0)
    s.placed(0, {"a": "a"}, 101.0)
    assert s.is_to_ask_again(0, 105.0)
    for place, when in (("b", 101.0), ("a", 99.0)):
        s = with_a_node_that_is_paused_at(100.0)
        s.placed(0, {place: place}, when)
        assert not s.is_to_ask_again(0, 105.0), "another node, or one that it was on before"


def test_an_engine_that_is_up_stays_where_it_is() -> None:
    s = with_a_node_that_is_paused_at(100.0)
    s.placed(0, {"a": "a"}, 101.0)
    s.ready(0, 104.0)
    assert not s.is_to_ask_again(0, 105.0)
