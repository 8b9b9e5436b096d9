"""What Ray's errors say of an actor's loss."""

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    NodeDiedError,
    OutOfMemoryError,
    RayError,
)

from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.coordinator.placement import ClusterResources
from magpie_ray.driver.cluster_watch import ClusterView
from magpie_ray.driver.ray_actors import lost_by

NOTHING = ClusterResources(node_cpus=(), node_gpus=())


class AnsweringWatch:
    view = ClusterView(alive=frozenset(), leaving=frozenset(), resources=NOTHING, free="")

    def reachable(self) -> bool:
        return True


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
