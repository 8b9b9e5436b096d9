"""What workers tell the job, as frozen values."""

from dataclasses import dataclass
from typing import Literal

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.types import Partition, PartitionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The worker runs on a node, as process `pid`, which logs to `log_path`; its engine is starting."""

    node_id: str
    host: str
    pid: int
    log_path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The engine is up."""

    figures: EngineFigures
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Totals since the worker started.

    started: rows that have begun, of those given to it. live_window: conversations that can be under way.
    doing: whether the engine is to step, waits for storage, or has nothing to do. dropped_rows: finished ones
    of partitions that it was told to drop. stored: partitions that storage has taken; storage_retries:
    requests to it that were made again.
    """

    tally: Tally
    engine: EngineStats
    started: int
    live_window: int
    doing: Literal["generating", "storing", "nothing"]
    dropped_rows: int = 0
    stored: int = 0
    storage_retries: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """What was open here as `partition` is in these files, which chain from its first row on.

    The last one may be written here; those before it were there already, from somebody who was first. They
    end before the partition does when the worker was told to leave, and may end after it. seconds: since the
    partition was opened, those of its upload included.
    """

    partition: Partition
    files: tuple[PartitionRecord, ...]
    seconds: float
    upload_seconds: float = 0.0


Event = Placed | Ready | Progress | Committed
