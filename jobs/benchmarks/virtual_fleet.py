"""A fleet in virtual time: workers with a speed and a queue, under the real driver logic.

A virtual worker sends the events of a ShardWorker: its progress at intervals, sooner while rows run short, at
once when they have run out, and each committed partition. Nothing is generated and no process starts, so what
is measured is the work of Job, Dispatcher, Fleet and Ledger.
"""

import functools
import heapq
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

from magpie_ray.coordinator.actors import Left, Lost
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker.events import Committed, Event, Progress, Ready

P = ParamSpec("P")
T = TypeVar("T")
Method: TypeAlias = Callable[Concatenate["VirtualActors", P], T]

_FIGURES = EngineFigures(max_num_seqs=256, kv_cache_tokens=860_000, max_model_len=8192)
_TOKENS_PER_ROW = 426
_HUNGRY_HASTE = 4
# RayActors.poll lets the events of many actors gather for this time at least.
_POLL_SECONDS = 0.25
_EPSILON = 1e-6


@dataclass(slots=True)
class _Worker:
    """One engine of `rate` rows/s. Times in virtual seconds.

    since: the time to which `finished` belongs. reported: the time of the last report. queue: partitions,
    each with the number of finished rows at its end. version: of its entry in the agenda; older entries are
    void.
    """

    rate: float
    window: int
    since: float
    reported: float
    finished: float = 0.0
    received: int = 0
    queue: deque[tuple[Partition, int]] = field(default_factory=deque)
    version: int = 0

    def advance(self, now: float) -> None:
        if self.queue:
            self.finished = min(self.received, self.finished + self.rate * (now - self.since))
        self.since = now

    @property
    def started(self) -> int:
        return min(self.received, int(self.finished + _EPSILON) + self.window)

    def next_time(self, every: float) -> float:
        """The time of its next event if it is given nothing before that."""
        hungry = bool(self.queue) and self.received - self.started < self.window
        due = self.reported + (every / _HUNGRY_HASTE if hungry else every)
        if not self.queue:
            return due
        return min(due, self.since + max(0.0, self.queue[0][1] - self.finished) / self.rate)


def _metered(method: Method[P, T]) -> Method[P, T]:
    """The same method, whose CPU time is added to `cpu_seconds`."""

    @functools.wraps(method)
    def metered(self: "VirtualActors", /, *args: P.args, **kwargs: P.kwargs) -> T:
        before = time.thread_time()
        try:
            return method(self, *args, **kwargs)
        finally:
            self.cpu_seconds += time.thread_time() - before

    return metered


class VirtualActors:
    """The Actors of a job (see magpie_ray.coordinator.actors) in virtual time, which `clock` tells.

    rates: rows/s of each slot. cpu_seconds: of the calling thread, spent in this stand-in.
    """

    def __init__(self, rates: Sequence[float], *, window: int, every: float) -> None:
        self._rates, self._window, self._every = rates, window, every
        self.now = self.cpu_seconds = 0.0
        self.num_events = self.num_given = self.num_polls = 0
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

    @_metered
    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        self._workers[slot] = _Worker(self._rates[slot], self._window, self.now, self.now - self._every)
        self._sooner.append((slot, Ready(figures=_FIGURES, seconds=0.0)))
        self._plan(slot)

    @_metered
    def give(self, slot: int, partition: Partition) -> None:
        self.num_given += 1
        worker = self._workers[slot]
        worker.advance(self.now)
        worker.received += partition.num_rows
        worker.queue.append((partition, worker.received))
        self._plan(slot)

    @_metered
    def drop(self, slot: int, partition: Partition) -> None:
        """Generate no more of the partition; those behind it move up."""
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

    def last(self, slot: int) -> None:
        """Virtual workers have no cohorts."""

    def finish(self, slot: int) -> None:
        self._sooner.append((slot, Left()))

    stop = finish

    def end(self, slot: int) -> None:
        self._workers.pop(slot, None)

    @_metered
    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """The events of the time for which a driver lets events gather, at most one a slot."""
        self.num_polls += 1
        if self._sooner:
            sooner, self._sooner = self._sooner, []
            return list(sooner)
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
            events[slot] = self._next_event(slot, worker, when)
            self._plan(slot)
        for entry in later:
            heapq.heappush(self._agenda, entry)
        self.num_events += len(events)
        return list(events.items())

    def _plan(self, slot: int) -> None:
        worker = self._workers[slot]
        worker.version += 1
        heapq.heappush(self._agenda, (worker.next_time(self._every), slot, worker.version))

    def _next_event(self, slot: int, worker: _Worker, when: float) -> Event:
        worker.advance(max(when, worker.since))
        if worker.queue and worker.finished >= worker.queue[0][1] - _EPSILON:
            partition, _ = worker.queue.popleft()
            if not worker.queue:
                worker.reported = when - self._every  # out of rows: reports at once
            self.committed_by[slot] = self.committed_by.get(slot, 0) + partition.num_rows
            self.last_commit = when
            return Committed(partition=partition, files=(_record(partition),), seconds=0.0)
        # From the second report on, workers are spread over the interval, as if each had come up at its own
        # pace.
        worker.reported = when - (0 if worker.received else self._every * (slot * 0.6180339887 % 1.0))
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

    def nodes(self) -> frozenset[str]:
        return frozenset()

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
