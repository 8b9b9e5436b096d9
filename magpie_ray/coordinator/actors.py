"""The actors of a run as the job sees them: the requests that it makes, and the ways to lose one."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from magpie_ray.errors import MagpieError
from magpie_ray.types import Partition
from magpie_ray.worker.events import Event


class Loss(Enum):
    """How an actor was lost; the value is how much that counts against its open partitions.

    FAILED: its run raised an error, and would probably do so again. DIED: it died without a word. The cause
    may be its work (out of memory, a crash) or not (kill -9), so it counts a quarter. NODE: its node died,
    which is common on spot instances; it counts just enough to end some day. LEFT: it ended on notice.
    """

    FAILED = 1.0
    DIED = 0.25
    NODE = 0.05
    LEFT = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The slot's actor died, or its run raised. error: what it raised, if that is a MagpieError.

    node_id, host: where an actor was that never said so itself, if that is known.
    """

    cause: str
    loss: Loss
    error: MagpieError | None = None
    node_id: str = ""
    host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """The slot's actor ended its run in order."""

    cause: str = "on notice (SIGTERM to it or to its node)"
    loss: Loss = Loss.LEFT
    error: None = None


class Actors(Protocol):
    """The actors of a run, one a slot, wherever they run.

    `poll` waits for events. `start`, `end` and `explain` wait for a slow cluster, but not for long; no other
    method waits.

    give, drop, last, finish and stop are passed on to the slot's worker (see worker.worker.ShardWorker).
    """

    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        """Request an actor for the slot, on any node but those with an id in `avoid`.

        An earlier actor of the slot has been ended.
        """

    def give(self, slot: int, partition: Partition) -> None: ...

    def drop(self, slot: int, partition: Partition) -> None: ...

    def last(self, slot: int) -> None: ...

    def finish(self, slot: int) -> None: ...

    def stop(self, slot: int) -> None: ...

    def end(self, slot: int) -> None:
        """Kill the slot's actor, if it is still alive."""

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """Pending events, at most one a slot. Waits for the first event up to the timeout.

        ClusterLostError when the cluster is gone.
        """

    def capacity(self) -> int:
        """The number of actors that the cluster has room for now."""

    def nodes(self) -> frozenset[str]:
        """Ids of the nodes that are up, stay, and are large enough for an actor or for a part of one."""

    def on_notice(self) -> list[int]:
        """Slots whose node is about to leave."""

    def explain(self, slot: int, cause: str) -> str:
        """The cause, with the last lines of the actor's own log."""

    def describe(self) -> str:
        """What the actors request, and what the cluster has."""
