"""The history of a run's actors: which node each ran on, from when to when, and how it ended; failed nodes.

For readers: nothing is decided by it. Invariants: the size of the stored record is bounded, however many
actors come and go; its sums include the lives that its list leaves out.
"""

import math
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from magpie_ray.dataset import layout
from magpie_ray.storage.storage import Storage

# About 150 bytes each.
MAX_LIVES = 5_000

MAX_NODES = 500

# lost: the actor died or was given up. left: it was on notice, or its node was. ended: the run was over.
End = Literal["lost", "left", "ended"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorLife:
    """One actor of a slot. Times are seconds since the run began; None for what has not happened.

    asked: the actor was requested. placed: it got a node. ready: its engine was up. rows: that it committed.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    slot: int
    asked: float
    placed: float | None = None
    ready: float | None = None
    ended: float | None = None
    node: str = ""
    rows: int = 0
    end: End | None = None
    cause: str = ""

    def held_seconds(self, now: float) -> float:
        """How long the actor has held its place, and the GPUs there."""
        until = now if self.ended is None else self.ended
        return until - self.placed if self.placed is not None else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedNode:
    """A node that was left alone after failures. pauses: how often; failures, cause: as of the last time."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    node_id: str
    host: str
    failures: int
    pauses: int
    cause: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorHistoryRecord:
    """The lives of the actors of run number `run` up to `seconds`, in the order in which they began.

    device, num_gpus: what one actor takes. left_out, left_out_seconds: how many lives are not in the list,
    and how long those actors held their places together. failed_nodes: those that were left alone.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    run: int
    device: str
    num_gpus: float
    seconds: float
    lives: tuple[ActorLife, ...]
    left_out: int
    left_out_seconds: float
    failed_nodes: tuple[FailedNode, ...] = ()

    @property
    def held_seconds(self) -> float:
        """Of all actors together, those left out included."""
        return math.fsum(life.held_seconds(self.seconds) for life in self.lives) + self.left_out_seconds

    @property
    def gpu_hours(self) -> float:
        """For which the actors held GPUs, busy or not."""
        return self.held_seconds * self.num_gpus / 3600


_RECORD = TypeAdapter(ActorHistoryRecord)


def write_actor_history(storage: Storage, record: ActorHistoryRecord) -> None:
    """Store the history so far, in place of an earlier one: compact, without the defaults of a life."""
    storage.replace(layout.actors_key(record.run), _RECORD.dump_json(record, exclude_defaults=True))


def read_actor_history(storage: Storage, run: int) -> ActorHistoryRecord | None:
    """The history of a run's actors, None where none was recorded. CorruptBuildError for a damaged one."""
    return layout.read_record(storage, layout.actors_key(run), _RECORD)
