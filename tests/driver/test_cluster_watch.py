"""Whether the head of a cluster answers, by a clock and a head that the test keeps."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from ray.exceptions import RpcError

from magpie_ray.coordinator.placement import ClusterResources
from magpie_ray.driver.cluster_watch import ClusterView, ClusterWatch
from magpie_ray.errors import ClusterLostError, PreflightError
from magpie_ray.utils.awake import AwakeClock

NODE = "node-1"


def view_of(*alive: str) -> ClusterView:
    nothing = ClusterResources(node_cpus=(), node_gpus=())
    return ClusterView(alive=frozenset(alive), leaving=frozenset(), resources=nothing, free="nothing")


@dataclass
class Head:
    """A head that answers, or not, and the kernel's clock."""

    address: str
    nodes: tuple[str, ...] = (NODE,)
    answers: bool = True
    now: float = 100.0
    clock: AwakeClock = field(init=False)

    def __post_init__(self) -> None:
        self.clock = AwakeClock(lambda: self.now, longest_gap=5.0)

    def ask(self) -> ClusterView:
        if not self.answers:
            raise RpcError("no answer")
        return view_of(*self.nodes)

    def watch(self, *, may_grow: bool = True) -> ClusterWatch:
        return ClusterWatch(
            may_grow=may_grow, gone_seconds=40.0, address=self.address, ask=self.ask, clock=self.clock
        )

    def pass_seconds(self, seconds: int, watch: ClusterWatch) -> None:
        """The clock ticks and the watch asks once a second."""
        for _ in range(seconds):
            self.now += 1.0
            self.clock()
            watch.look()


@pytest.fixture
def head() -> Iterator[Head]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Head(f"127.0.0.1:{server.getsockname()[1]}")


def test_a_head_that_is_silent_for_too_long_is_lost(head: Head, caplog: pytest.LogCaptureFixture) -> None:
    watch = head.watch()
    head.answers = False
    head.pass_seconds(39, watch)
    watch.check()
    assert "has not answered for 39 s" in caplog.text
    assert not watch.reachable()
    head.pass_seconds(2, watch)
    with pytest.raises(ClusterLostError, match=f"{head.address} is gone: its head has not answered for 41 s"):
        watch.check()


def test_a_driver_that_was_suspended_does_not_take_its_own_pause_for_the_heads_death(head: Head) -> None:
    watch = head.watch()
    head.now += 3600.0
    watch.check()
    head.pass_seconds(1, watch)
    watch.check()
    assert watch.reachable()


def test_a_head_that_stays_silent_after_a_pause_is_lost_all_the_same(head: Head) -> None:
    watch = head.watch()
    head.answers = False
    head.now += 3600.0
    watch.check()
    head.pass_seconds(40, watch)
    with pytest.raises(ClusterLostError):
        watch.check()


def test_a_local_cluster_without_its_only_node_is_lost_at_once(head: Head) -> None:
    watch = head.watch(may_grow=False)
    head.nodes = ()
    head.pass_seconds(1, watch)
    with pytest.raises(ClusterLostError, match=r"lost its only node.*the same command starts a new cluster"):
        watch.check()


@pytest.mark.parametrize(("may_grow", "nodes"), [(True, ()), (False, ("another",))])
def test_a_cluster_that_may_get_nodes_or_still_has_some_goes_on(
    head: Head, may_grow: bool, nodes: tuple[str, ...]
) -> None:
    watch = head.watch(may_grow=may_grow)
    head.nodes = nodes
    head.pass_seconds(1, watch)
    watch.check()


def test_after_a_question_without_an_answer_nobody_asks_for_a_while(head: Head) -> None:
    watch = head.watch()
    watch.note_silence()
    assert not watch.reachable()
    head.pass_seconds(9, watch)
    assert watch.reachable()


def test_a_head_that_takes_connections_and_answers_nothing_is_refused(head: Head) -> None:
    never = threading.Event()

    def ask() -> ClusterView:
        never.wait()
        return view_of()

    with pytest.raises(PreflightError, match="takes connections, but its head has not answered for 0 s"):
        ClusterWatch(may_grow=True, first_seconds=0.01, address=head.address, ask=ask)
    never.set()
