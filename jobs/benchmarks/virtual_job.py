"""A whole job over a virtual fleet: its virtual time, and the driver's CPU."""

import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from jobs.benchmarks.virtual_fleet import VirtualActors
from magpie_ray.config.loading import load_config
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import progress_seconds
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.staffing import Pauses
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord, open_build
from magpie_ray.errors import InterruptedJobError
from magpie_ray.storage.storage import Storage

# A job spreads the starts of many new slots over two minutes, which says nothing of its speed.
_AT_ONCE = Pauses(ramp_seconds=0.0)


def bare_build(rows_per_partition: int) -> BuildRecord:
    """A build record with nothing in it but the grid."""
    return BuildRecord(
        identity={},
        rows_per_partition=rows_per_partition,
        chat_format={},
        columns=(),
        compression="zstd",
        config={},
        versions={},
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualRun:
    """A job from its first to its last row in virtual seconds, and the driver's CPU in real seconds.

    every: seconds between a worker's reports. rows_most, rows_least: committed by any worker.
    """

    workers: int
    every: float
    rows: int
    partitions: int
    seconds: float
    events: int
    given: int
    driver_cpu_seconds: float
    rows_most: int
    rows_least: int

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def run_virtually(
    *,
    workers: int,
    rows_per_worker: int,
    rows_per_partition: int,
    rows_per_second: float,
    window: int = 768,
    every: float | None = None,
    speeds: Callable[[int], float] = lambda slot: 1.0,
    stop_after: float = math.inf,
) -> VirtualRun:
    """One job. every: seconds between a worker's reports, as the driver would ask for it if None.

    speeds: by which factor the worker of a slot is faster than `rows_per_second`. stop_after: virtual seconds
    after which the job is stopped.
    """
    num_rows = workers * rows_per_worker
    config = load_config(None, [f"num_rows={num_rows}", "n_turns=1", "output.path=memory://virtual"])
    if every is None:
        every = progress_seconds(workers, stall_timeout_seconds=config.cluster.stall_timeout_seconds)
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    build = open_build(storage, bare_build(rows_per_partition))
    partitions = partitioning.pending(num_rows, rows_per_partition, [])
    rates = [rows_per_second * speeds(slot) for slot in range(workers)]
    actors = VirtualActors(rates, window=window, every=every)
    before = time.thread_time()
    ledger = Ledger([])
    job = Job(
        config=config,
        storage=storage,
        ledger=ledger,
        output=OutputSync(storage, build, ledger, num_rows=num_rows),
        dispatcher=Dispatcher(
            partitions, num_slots=workers, grid=rows_per_partition, max_failures_per_partition=3
        ),
        actors=actors,
        clock=actors.clock,
        pauses=_AT_ONCE,
    )
    with suppress(InterruptedJobError):
        job.work([], lambda: actors.now >= stop_after)
    taken = time.thread_time() - before
    stopped = sum(actors.committed_by.values()) < num_rows
    by_worker = [actors.committed_by.get(slot, 0) for slot in range(workers)]
    return VirtualRun(
        workers=workers,
        every=every,
        rows=num_rows,
        partitions=len(partitions),
        seconds=min(stop_after, actors.now) if stopped else actors.last_commit,
        events=actors.num_events,
        given=actors.num_given,
        driver_cpu_seconds=taken - actors.cpu_seconds,
        rows_most=max(by_worker),
        rows_least=min(by_worker),
    )
