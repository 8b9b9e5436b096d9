"""Which nodes are left alone, for how long, and who may try them again."""

from magpie_ray.coordinator.nodes import NodePaused, Nodes

ALL = frozenset({"bad", "good"})


def fail(nodes: Nodes, node: str = "bad", *, slot: int = 0, now: float = 0.0) -> NodePaused | None:
    return nodes.failed(node, f"host-{node}", slot=slot, cause="no CUDA", jitter=1.0, now=now)


def left_alone(*, now: float = 0.0) -> Nodes:
    nodes = Nodes()
    fail(nodes, now=now)
    assert fail(nodes, now=now)
    return nodes


def test_a_node_that_failed_twice_is_avoided_for_a_while() -> None:
    nodes = Nodes()
    assert fail(nodes) is None
    assert nodes.choose_avoided(0, ALL, 0.0) == frozenset(), "once is bad luck"
    paused = fail(nodes, now=10.0)
    assert paused is not None
    assert (paused.failures, paused.seconds, paused.host) == (2, 60.0, "host-bad")
    assert "host-bad" in str(paused)
    assert nodes.choose_avoided(0, ALL, 69.0) == {"bad"}


def test_after_the_pause_one_actor_tries_the_node_and_the_others_wait_for_its_first_file() -> None:
    nodes = left_alone()
    assert nodes.choose_avoided(0, ALL, 60.0) == frozenset()
    assert nodes.choose_avoided(1, ALL, 60.0) == {"bad"}
    nodes.released(0, node_ids={"bad"})
    nodes.committed("bad", slot=0, placed=61.0, now=400.0)
    assert nodes.choose_avoided(1, ALL, 400.0) == frozenset()


def test_where_only_starts_failed_an_engine_that_is_up_opens_the_node() -> None:
    for was_ready, avoided in ((False, frozenset()), (True, frozenset({"bad"}))):
        nodes = Nodes()
        for _ in range(2):
            nodes.failed("bad", "host-bad", slot=0, cause="no CUDA", jitter=1.0, now=0.0, was_ready=was_ready)
        nodes.choose_avoided(0, ALL, 60.0)
        nodes.released(0, node_ids={"bad"})
        nodes.ready("bad", slot=0)
        assert nodes.choose_avoided(1, ALL, 61.0) == avoided


def test_a_pause_counts_from_its_beginning_and_not_for_the_slot_that_tries_the_node() -> None:
    nodes = left_alone(now=10.0)
    assert nodes.paused_since(0, 9.0) == {"bad"}
    assert nodes.paused_since(0, 10.0) == frozenset(), "whoever asks from then on avoids it"
    fail(nodes, now=20.0)
    assert nodes.paused_since(0, 10.0) == frozenset(), "a failure of an actor that was there is no new pause"
    nodes.choose_avoided(0, ALL, 70.0)
    assert nodes.paused_since(0, 9.0) == frozenset()
    assert nodes.paused_since(1, 9.0) == {"bad"}


def test_pauses_grow_while_the_node_fails_whenever_it_is_tried() -> None:
    nodes, now, seconds = left_alone(), 60.0, []
    for _ in range(5):
        assert nodes.choose_avoided(0, ALL, now) == frozenset()
        paused = fail(nodes, now=now)
        assert paused is not None
        seconds.append(paused.seconds)
        now += paused.seconds
    assert seconds == [300.0, 900.0, 3600.0, 3600.0, 3600.0]


def test_a_node_that_did_well_and_fails_again_has_a_longer_pause() -> None:
    nodes = left_alone()
    nodes.choose_avoided(0, ALL, 60.0)
    nodes.committed("bad", slot=0, placed=61.0, now=400.0)
    paused = fail(nodes, now=500.0)
    assert paused is not None
    assert paused.seconds == 300.0


def test_an_hour_of_good_work_makes_up_for_failures() -> None:
    nodes = left_alone()
    nodes.choose_avoided(0, ALL, 60.0)
    nodes.committed("bad", slot=0, placed=61.0, now=400.0)
    nodes.committed("bad", slot=0, placed=61.0, now=3700.0)
    assert not nodes.has_failed("bad")


def test_work_of_an_actor_that_was_there_before_says_nothing_of_the_broken_gpu_beside_it() -> None:
    nodes = Nodes()
    for now in (100.0, 200.0):
        fail(nodes, now=now)
    nodes.committed("bad", slot=7, placed=0.0, now=9999.0)
    assert nodes.has_failed("bad")


def test_actors_that_started_before_the_pause_and_fail_during_it_do_not_lengthen_it() -> None:
    nodes = left_alone()
    assert fail(nodes, slot=3, now=30.0) is None
    assert nodes.choose_avoided(0, ALL, 60.0) == frozenset()


def test_an_actor_that_found_another_place_leaves_the_trial_to_the_next() -> None:
    nodes = left_alone()
    nodes.choose_avoided(0, ALL, 60.0)
    nodes.released(0, node_ids={"good"})
    assert nodes.choose_avoided(1, ALL, 61.0) == frozenset()


def test_where_all_nodes_failed_the_one_that_was_tried_least_recently_is_tried() -> None:
    nodes = Nodes()
    for now, node in enumerate(["good", "good", "bad", "bad"]):
        fail(nodes, node, now=float(now))
    assert nodes.choose_avoided(0, ALL, 5.0) == {"bad"}
    assert nodes.choose_avoided(1, ALL, 6.0) == {"good"}, "many slots spread over the nodes"
    assert nodes.choose_avoided(2, ALL, 7.0) == {"bad"}


def test_the_only_node_is_never_avoided() -> None:
    nodes = left_alone()
    assert nodes.choose_avoided(0, frozenset({"bad"}), 1.0) == frozenset()


def test_an_actor_that_waits_hears_when_a_node_that_it_avoids_is_open() -> None:
    nodes = left_alone()
    assert not nodes.opened(1, {"bad"}, 59.0)
    assert nodes.opened(1, {"bad"}, 60.0)
    nodes.choose_avoided(0, ALL, 60.0)
    assert not nodes.opened(1, {"bad"}, 61.0), "somebody tries it"
    nodes.committed("bad", slot=0, placed=61.0, now=400.0)
    assert nodes.opened(1, {"bad"}, 400.0)


def test_an_actor_that_may_try_one_node_waits_for_a_place_there() -> None:
    nodes = Nodes()
    for node in ("bad", "bad", "worse", "worse"):
        fail(nodes, node)
    present = frozenset({"bad", "worse", "good"})
    assert nodes.choose_avoided(0, present, 60.0) == {"worse"}
    assert not nodes.opened(0, {"worse"}, 61.0), "else it would be asked for again and again"
    assert nodes.opened(1, {"worse"}, 61.0)


def test_nodes_that_are_gone_are_forgotten() -> None:
    nodes = Nodes()
    for number in range(1000):
        for _ in range(2):
            fail(nodes, f"spot-{number}", now=float(number))
        nodes.choose_avoided(0, frozenset({"good"}), float(number))
    nodes.choose_avoided(0, frozenset({"good"}), 10_000.0)
    assert not any(nodes.has_failed(f"spot-{number}") for number in range(1000))


def test_nodes_that_are_gone_are_not_named_to_avoid() -> None:
    assert left_alone().choose_avoided(0, frozenset({"good", "new"}), 1.0) == frozenset()
