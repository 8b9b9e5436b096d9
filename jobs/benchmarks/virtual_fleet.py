"""A fleet in virtual time: workers that are a speed and a queue, under the real driver logic.

What a worker tells and when is what ShardWorker tells (magpie_ray/worker.py): its progress every so often,
sooner while rows run short, at once when they have run out, and each partition that is committed. Nothing is
generated and no process is started: what is left is the work of Job, Dispatcher, Fleet and Ledger.
"""

import heapq
import math
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, TypeVar

from magpie_ray.config.schema import load_config
from magpie_ray.coordinator.actors import Left, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import progress_seconds
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.errors import InterruptedJobError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker.events import Committed, Event, Progress, Ready
from magpie_ray.worker.worker import PROGRESS_SECONDS

P = ParamSpec("P")
T = TypeVar("T")

_FIGURES = EngineFigures(max_num_seqs=256, kv_cache_tokens=860_000, max_model_len=8192)
_TOKENS_PER_ROW = 426
_HUNGRY_HASTE = 4
# The least that RayActors.poll lets events gather with many actors (see its _rest), and the most.
_POLL_SECONDS = 0.25
_EPSILON = 1e-6


@dataclass(slots=True)
class _Worker:
    """One engine of `rate` rows/s. Times in virtual seconds.

    since: when `finished` was true. ends: rows at which its partitions end, counted as `finished` is.
    """

    rate: float
    window: int
    since: float
    told: float
    finished: float = 0.0
    received: int = 0
    queue: deque[tuple[Partition, int]] = field(default_factory=deque)
    version: int = 0
    was_dry: bool = True

    def advance(self, now: float) -> None:
        if self.queue:
            self.finished = min(self.received, self.finished + self.rate * (now - self.since))
        self.since = now

    @property
    def started(self) -> int:
        return min(self.received, int(self.finished + _EPSILON) + self.window)

    def next_time(self, every: float) -> float:
        """When it speaks next, if nothing comes before that."""
        hungry = bool(self.queue) and self.received - self.started < self.window
        due = self.told + (every / _HUNGRY_HASTE if hungry else every)
        if not self.queue:
            return due
        return min(due, self.since + max(0.0, self.queue[0][1] - self.finished) / self.rate)


class VirtualActors:
    """The Actors of a job (see magpie_ray.coordinator.actors). `clock` is the time for everybody.

    rates: rows/s of each slot. cpu_seconds: what this stand-in itself took of the thread that calls it.
    """

    def __init__(self, rates: Sequence[float], *, window: int, every: float) -> None:
        self._rates, self._window, self._every = rates, window, every
        self.now = self.cpu_seconds = 0.0
        self.num_events = self.num_progress = self.num_given = self.num_polls = 0
        self.committed_by = dict[int, int]()  # rows by slot
        self.last_commit = 0.0
        self._workers = dict[int, _Worker]()
        self._agenda: list[tuple[float, int, int]] = []  # when, slot, version
        self._sooner: list[tuple[int, Event | Left]] = []

    def clock(self) -> float:
        """Virtual seconds."""
        return self.now

    @property
    def num_running(self) -> int:
        """Workers that have started and not ended."""
        return len(self._workers)

    def start(self, slot: int, *, engine_start: int) -> None:
        self._workers[slot] = _Worker(self._rates[slot], self._window, self.now, self.now - self._every)
        self._sooner.append((slot, Ready(figures=_FIGURES, seconds=0.0)))
        self._plan(slot)

    def give(self, slot: int, partition: Partition) -> None:
        self.num_given += 1
        worker = self._workers[slot]
        worker.advance(self.now)
        worker.received += partition.num_rows
        worker.queue.append((partition, worker.received))
        self._plan(slot)

    def drop(self, slot: int, partition: Partition) -> None:
        """The rest of it is not generated: what comes after it moves up."""
        worker = self._workers[slot]
        worker.advance(self.now)
        held, at = list(worker.queue), int(worker.finished)
        worker.queue.clear()
        for other, _ in held:
            done = partition.num_rows if other == partition else 0
            at += other.num_rows - done
            if not done:
                worker.queue.append((other, at))
        worker.received = at
        self._plan(slot)

    def finish(self, slot: int) -> None:
        self._sooner.append((slot, Left()))

    stop = finish

    def end(self, slot: int) -> None:
        self._workers.pop(slot, None)

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """What is told within the time that a driver lets events gather; one event a slot."""
        self.num_polls += 1
        if self._sooner:
            told, self._sooner = self._sooner, []
            return list(told)
        first = self._agenda[0][0] if self._agenda else self.now + timeout_seconds
        self.now = min(self.now + timeout_seconds, max(self.now + _POLL_SECONDS, first))
        events = dict[int, Event | Lost | Left]()
        later = []
        while self._agenda and self._agenda[0][0] <= self.now:
            when, slot, version = heapq.heappop(self._agenda)
            worker = self._workers.get(slot)
            if worker is None or worker.version != version:
                continue
            if slot in events:
                later.append((when, slot, version))
                continue
            events[slot] = self._speak(slot, worker, when)
            self._plan(slot)
        for entry in later:
            heapq.heappush(self._agenda, entry)
        self.num_events += len(events)
        return list(events.items())

    def _plan(self, slot: int) -> None:
        worker = self._workers[slot]
        worker.version += 1
        heapq.heappush(self._agenda, (worker.next_time(self._every), slot, worker.version))

    def _speak(self, slot: int, worker: _Worker, when: float) -> Event:
        worker.advance(max(when, worker.since))
        if worker.queue and worker.finished >= worker.queue[0][1] - _EPSILON:
            partition, _ = worker.queue.popleft()
            if not worker.queue:
                worker.told = when - self._every  # dry: it says so at once
            self.committed_by[slot] = self.committed_by.get(slot, 0) + partition.num_rows
            self.last_commit = when
            return Committed(partition=partition, files=(_record(partition),), seconds=0.0)
        # Spread over the interval from the second one on, as workers that come up at their own pace are.
        worker.told = when - (0 if worker.received else self._every * (slot * 0.6180339887 % 1.0))
        self.num_progress += 1
        doing: Literal["generating", "nothing"] = "generating" if worker.queue else "nothing"
        rows = int(worker.finished + _EPSILON)
        return Progress(
            tally=Tally(
                rows=rows,
                rejected={"empty": rows // 50, "role_marker": rows // 90},
                user_tokens=30 * rows,
                assistant_tokens=(_TOKENS_PER_ROW - 30) * rows,
            ),
            engine=EngineStats(steps=int(when * 30), generated_tokens=int(worker.finished * _TOKENS_PER_ROW)),
            started=worker.started,
            live_window=self._window,
            doing=doing,
        )

    def capacity(self) -> int:
        return 0

    def on_notice(self) -> list[int]:
        return []

    def explain(self, slot: int, cause: str) -> str:
        return cause

    def describe(self) -> str:
        return "virtual workers"


def _record(partition: Partition) -> PartitionRecord:
    rows = partition.num_rows
    return PartitionRecord(
        start=partition.start,
        stop=partition.stop,
        fingerprint="f" * 64,
        run=1,
        size=1500 * rows,
        rejected={"empty": rows // 50, "role_marker": rows // 90},
        user_tokens=30 * rows,
        assistant_tokens=(_TOKENS_PER_ROW - 30) * rows,
    )


class _Metered(VirtualActors):
    """As VirtualActors, with the thread's time in each call counted as its own."""

    def _metered(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        before = time.thread_time()
        try:
            return call(*args, **kwargs)
        finally:
            self.cpu_seconds += time.thread_time() - before

    def start(self, slot: int, *, engine_start: int) -> None:
        self._metered(super().start, slot, engine_start=engine_start)

    def give(self, slot: int, partition: Partition) -> None:
        self._metered(super().give, slot, partition)

    def drop(self, slot: int, partition: Partition) -> None:
        self._metered(super().drop, slot, partition)

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        return self._metered(super().poll, timeout_seconds)


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualRun:
    """A job from first to last row, in virtual seconds, and what its driver took in real ones.

    every: seconds between a worker's reports. rows_most, rows_least: of any worker, in files.
    """

    workers: int
    every: float
    rows: int
    partitions: int
    seconds: float
    events: int
    progress_events: int
    given: int
    polls: int
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
        every = max(PROGRESS_SECONDS, every)
    storage = Storage(f"memory://{uuid.uuid4().hex}")
    build = BuildRecord(
        identity={},
        rows_per_partition=rows_per_partition,
        chat_format={},
        columns=(),
        compression="zstd",
        config={},
        versions={},
    )
    partitions = partitioning.pending(num_rows, rows_per_partition, [])
    actors = _Metered([rows_per_second * speeds(slot) for slot in range(workers)], window=window, every=every)
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
        progress_events=actors.num_progress,
        given=actors.num_given,
        polls=actors.num_polls,
        driver_cpu_seconds=taken - actors.cpu_seconds,
        rows_most=max(by_worker),
        rows_least=min(by_worker),
    )
