"""The workers of a run as the job sees them: what they are asked for, and what is heard of them."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from magpie_ray.errors import MagpieError
from magpie_ray.types import Partition
from magpie_ray.worker.events import Event


class Loss(Enum):
    """How a worker was lost, and how much that counts against what it was working on.

    FAILED: it said why, and would probably say so again. DIED: without a word, which may be the work's fault
    (no memory, a crash) or somebody else's (kill -9), so that it counts for a quarter. NODE: with its node,
    which on the spot market is everyday, and counts only so much that it ends some time. LEFT: on notice.
    """

    FAILED = 1.0
    DIED = 0.25
    NODE = 0.05
    LEFT = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The slot's actor died, or its run raised. `error`: what it raised, when that is one of ours."""

    cause: str
    loss: Loss
    error: MagpieError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """The slot's actor ended its run in order."""


class Actors(Protocol):
    """The workers of a run, one a slot, wherever they are. None but `poll` waits for anything long."""

    def start(self, slot: int, *, engine_start: int) -> None:
        """Make a worker for the slot, in place of an earlier one that was ended."""

    def give(self, slot: int, partition: Partition) -> None: ...

    def drop(self, slot: int, partition: Partition) -> None: ...

    def finish(self, slot: int) -> None: ...

    def stop(self, slot: int) -> None: ...

    def end(self, slot: int) -> None:
        """Kill the slot's worker, if it still lives."""

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """Events that are there, at most one a slot; waits for the first up to the timeout.

        ClusterLostError when there is no cluster any more.
        """

    def capacity(self) -> int:
        """How many actors there should be, by what the cluster can hold now."""

    def on_notice(self) -> list[int]:
        """Slots whose node is about to leave."""

    def explain(self, slot: int, cause: str) -> str:
        """The cause with what the slot's worker has told of it in its own log."""

    def describe(self) -> str:
        """What the workers ask for and what there is."""
