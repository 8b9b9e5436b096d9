"""What Ray's errors say of an actor's loss, and what becomes of requests that hang."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
)

from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.coordinator.placement import ClusterResources, Placement
from magpie_ray.driver.actor_losses import lost_by
from magpie_ray.driver.cluster_watch import ClusterView
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.worker.events import Placed

NOTHING = ClusterResources(node_cpus=(), node_gpus=())
TWO_GPUS = Placement(device="cuda", num_cpus=1, num_gpus=2, bundles=((("GPU", 2.0), ("CPU", 1.0)),))


class AnsweringWatch:
    view = ClusterView(alive=frozenset(), leaving=frozenset(), resources=NOTHING, free="")

    def __init__(self) -> None:
        self.silent = 0

    def reachable(self) -> bool:
        return not self.silent

    def note_silence(self) -> None:
        self.silent += 1

    def check(self) -> None:
        """The cluster is there."""


def ray_actors(watch: Any, *, ask_seconds: float) -> RayActors:
    class Process:
        """Any class will do: no actor is ever asked for."""

    return RayActors(
        None,  # type: ignore[arg-type]
        lambda _: None,  # type: ignore[arg-type,return-value]
        TWO_GPUS,
        watch,
        capacity_in=lambda _: 2,
        secrets=frozenset(),
        engine_factory=None,
        process=Process,  # type: ignore[arg-type]
        ask_seconds=lambda: ask_seconds,
    )


def test_a_request_that_a_head_refuses_while_it_goes_away_is_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise RaySystemError("the GCS is restarting")

    monkeypatch.setattr("magpie_ray.driver.ray_actors.placement_group", refuses)
    watch = AnsweringWatch()
    actors = ray_actors(watch, ask_seconds=30.0)
    actors.start(0, engine_start=0)
    assert watch.silent == 1
    assert actors.describe().startswith("1 actors want")
    assert "it is repeated: RaySystemError: " in caplog.text


def test_a_head_that_hangs_in_the_middle_of_a_request_keeps_the_job_only_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = threading.Event()

    def hangs(*_: object, **__: object) -> None:
        free.wait()
        raise ConnectionError("the head is gone")

    monkeypatch.setattr("magpie_ray.driver.ray_actors.placement_group", hangs)
    watch = AnsweringWatch()
    actors = ray_actors(watch, ask_seconds=0.01)
    actors.start(0, engine_start=0)
    actors.start(1, engine_start=1)
    assert watch.silent == 1, "nothing is asked of a head that did not answer just now"
    assert actors.describe().startswith("2 actors want")
    actors.end(0)
    assert actors.describe().startswith("1 actors want")
    free.set()


def test_an_actor_that_a_silent_head_does_not_let_end_is_ended_when_the_head_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    killed: list[Any] = []
    actor = SimpleNamespace(handle="handle", events="events", group="group", place=None)

    def answers(_: float, call: Any, **__: object) -> Any:
        return killed.append(call.args) if call.args == (actor,) else actor

    monkeypatch.setattr("magpie_ray.driver.ray_actors.within", answers)
    watch = AnsweringWatch()
    actors = ray_actors(watch, ask_seconds=30.0)
    actors.start(0, engine_start=0)
    watch.silent = 1
    actors.end(0)
    assert actors.poll(0.0) == []
    assert killed == []
    watch.silent = 0
    assert actors.poll(0.0) == []
    assert actors.poll(0.0) == []
    assert killed == [(actor,)]


@pytest.mark.parametrize(
    ("error", "loss"),
    [
        (OutOfMemoryError("no memory left"), Loss.FAILED),
        (ActorUnschedulableError("no such node"), Loss.DIED),
        (ActorDiedError(), Loss.DIED),
        (ActorUnavailableError("for now", None), Loss.NODE),
        (NodeDiedError("gone"), Loss.NODE),
    ],
)
def test_whatever_ray_says_of_an_actor_counts_as_its_loss(error: RayError, loss: Loss) -> None:
    lost = lost_by(error, None, AnsweringWatch())
    assert isinstance(lost, Lost)
    assert type(error).__name__ in lost.cause
    assert lost.loss == loss


@pytest.mark.parametrize(("alive", "loss"), [("a", Loss.NODE), ("ab", Loss.DIED)])
def test_an_engine_over_several_nodes_is_lost_with_any_of_them(alive: str, loss: Loss) -> None:
    place = Placed(node_id="a", host="host-a", pid=1, log_path="", others=(("b", "host-b"),))
    watch = AnsweringWatch()
    watch.view = replace(watch.view, alive=frozenset(alive))
    assert lost_by(ActorDiedError(), place, watch).loss == loss  # type: ignore[arg-type]
