"""A job at one moment, as a value: what is shown, logged, exported and written as its heartbeat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.worker.events import Committed


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A job at one moment. Rates are over `seconds`, the time since the first engine was up.

    rows: of the whole build, `committed_rows` of them in files, the others finished and in none yet.
    rows_this_run: those of `rows` that were not there before. generated: what the run's engines have made,
    what was lost with actors included. committed: all attempts behind the files that this run has written.
    actors_starting: placed on a node, with an engine that is not up yet. lost, lost_rows: actors that were
    lost, and the finished rows that went with them and are generated again. retried_partitions: those that
    a lost actor had not ended; storage_retries: requests to storage that were made again.
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

    @property
    def actors_waiting(self) -> int:
        """Those that have found no node yet."""
        return self.actors_wanted - self.actors_up - self.actors_starting

    @property
    def rows_per_second(self) -> float:
        return self.rows_this_run / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.generated.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def accepted(self) -> float | None:
        """The part of all attempts that was accepted, 0..1; None before there are any."""
        return self.generated.rows / self.generated.attempts if self.generated.attempts else None

    @property
    def seconds_left(self) -> float | None:
        """At the mean rate so far; None before there is one."""
        return (self.num_rows - self.rows) / self.rows_per_second if self.rows_per_second else None

    def fields(self) -> Mapping[str, object]:
        """For machines: one flat mapping, JSON-able."""
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
        }


class Watcher(Protocol):
    """Called by the job's loop, in its thread, more than once a second."""

    def show(self, snapshot: Snapshot) -> None: ...

    def committed(self, slot: int, event: Committed) -> None: ...


class Watchers:
    """Several as one."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = watchers

    def show(self, snapshot: Snapshot) -> None:
        for watcher in self._watchers:
            watcher.show(snapshot)

    def committed(self, slot: int, event: Committed) -> None:
        for watcher in self._watchers:
            watcher.committed(slot, event)
