"""What a watcher of a job is told: every event, and a snapshot of the job more than once a second."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from magpie_ray.coordinator.actors import Left, Lost
from magpie_ray.coordinator.nodes import NodePaused
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.worker.events import Event

_SHOWN_NODES = 20


@dataclass(frozen=True, slots=True)
class Requested:
    """An actor was requested for the slot: its first one, or a replacement."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The slot's actor is gone because the run is over."""


JobEvent = Requested | Event | Lost | Left | NodePaused | Ended


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A job at one moment. seconds: since the first engine was up; rates are means over that time.

    rows: finished rows of the whole build, of which `committed_rows` are in files. rows_this_run: finished by
    this run. generated: all attempts of this run's engines, lost rows included. committed: the attempts
    behind the files that this run wrote. actors_starting: placed on a node, the engine not up yet. lost:
    actors that were lost or left; lost_rows: their finished rows that are generated again.
    retried_partitions: partitions that such actors left unfinished. storage_retries: repeated requests.
    nodes_left_alone: hosts on which no actor starts for a while, because actors failed there. job: the
    command that runs it.
    """

    num_rows: int
    rows: int
    rows_this_run: int
    committed_rows: int
    generated: Tally
    actors_up: int
    actors_starting: int
    actors_wanted: int
    lost: int
    lost_rows: int
    seconds: float
    committed: Tally = field(default_factory=Tally)
    engines: EngineStats = field(default_factory=EngineStats)
    retried_partitions: int = 0
    storage_retries: int = 0
    nodes_left_alone: tuple[str, ...] = ()
    job: str = "generate"

    @property
    def actors_waiting(self) -> int:
        """Actors that wait for a node, or for their next start."""
        return self.actors_wanted - self.actors_up - self.actors_starting

    @property
    def rows_per_second(self) -> float:
        return self.rows_this_run / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.generated.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def accepted(self) -> float | None:
        """The share of attempts that were accepted, 0..1; None before the first attempt."""
        return self.generated.accepted / self.generated.attempts if self.generated.attempts else None

    @property
    def seconds_left(self) -> float | None:
        """At the mean rate so far; None before the first row."""
        return (self.num_rows - self.rows) / self.rows_per_second if self.rows_per_second else None

    def fields(self) -> Mapping[str, object]:
        """The snapshot as one flat JSON object."""
        left = self.seconds_left
        return {
            "num_rows": self.num_rows,
            "rows": self.rows,
            "committed_rows": self.committed_rows,
            "rows_per_second": round(self.rows_per_second, 3),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "accepted": None if self.accepted is None else round(self.accepted, 4),
            "eta_seconds": None if left is None else round(left),
            "actors_up": self.actors_up,
            "actors_starting": self.actors_starting,
            "actors_waiting": self.actors_waiting,
            "actors_replaced": self.lost,
            "nodes_left_alone": list(self.nodes_left_alone[:_SHOWN_NODES]),
        }


class Watcher:
    """Follows a job. The job's loop calls both methods in its own thread: they must return quickly."""

    def hear(self, slot: int, event: JobEvent) -> None:
        """Something happened in the slot. A Committed lists only files that the job did not know before."""

    def show(self, snapshot: Snapshot) -> None:
        """The state of the job now."""

    def note_last(self) -> None:
        """The job's loop is over, and no other call follows. The run's last records are not written yet."""
