"""The events of a worker: what it tells the job."""

from dataclasses import dataclass
from typing import Literal

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.types import Partition, PartitionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """The worker runs on a node, as process `pid`, which logs to `log_path`. Its engine starts.

    others: ids and hosts of further nodes, where the engine spreads over several.
    """

    node_id: str
    host: str
    pid: int
    log_path: str
    others: tuple[tuple[str, str], ...] = ()

    @property
    def nodes(self) -> dict[str, str]:
        """The host of each node that the engine is on, by the node's id."""
        return {self.node_id: self.host, **dict(self.others)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """The engine is up, `seconds` after the worker started."""

    figures: EngineFigures
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Totals since the worker started.

    started: rows that have begun. live_window: conversations that may be alive at once. doing: whether the
    engine is about to step, the worker waits for storage, or it has nothing to do. decided: messages that
    were accepted or rejected; awaited_rule: the acceptance rule for which the engine has to wait.
    dropped_rows: finished rows of dropped partitions. stored: partitions that storage has taken;
    storage_retries: repeated requests.
    """

    tally: Tally
    engine: EngineStats
    started: int
    live_window: int
    doing: Literal["generating", "storing", "nothing"]
    decided: int = 0
    awaited_rule: str = ""
    dropped_rows: int = 0
    stored: int = 0
    storage_retries: int = 0

    @property
    def work(self) -> int:
        """Tokens, decided messages and stored partitions. It stands still when the worker hangs."""
        return self.engine.prompt_tokens + self.engine.generated_tokens + self.decided + self.stored


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """The rows of an open partition are in these files, which chain from its first row on.

    The worker wrote the last file, unless others had already written all of them. The files may end after
    the partition does, and before it when the worker was told to stop. seconds: since
    the partition was opened, its upload included.
    """

    partition: Partition
    files: tuple[PartitionRecord, ...]
    seconds: float
    upload_seconds: float = 0.0


Event = Placed | Ready | Progress | Committed
