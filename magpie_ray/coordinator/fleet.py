"""What is known of each slot's current worker, and what is to be concluded from its silence.

Times are seconds of one monotonic clock, given by the caller. What always holds: an engine that is to get on
and does not, or that does not come up, is overdue after a bounded time; pings are no progress, nor are steps
in which no token is read or written. What is asked of all workers costs no more with ten thousand than with
ten: sums are kept, and the next one to be overdue is first in a ranking.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.storage.storage import RETRY_SECONDS
from magpie_ray.worker.events import Progress

# By then a store that fails has been given up by the worker itself; one that does neither hangs.
_STORING_SECONDS = 2 * RETRY_SECONDS
# Ray takes about 1 ms of a core to bring the driver one event: about so many a second from all workers,
# while each is still heard of every 50 s and well within its time.
_WORDS_PER_SECOND = 20
_LONGEST_SILENCE_SECONDS, _SILENCES_PER_STALL = 50.0, 10


def progress_seconds(num_workers: int, *, stall_timeout_seconds: float) -> float:
    """How rarely each of so many workers tells of its progress."""
    most = min(_LONGEST_SILENCE_SECONDS, stall_timeout_seconds / _SILENCES_PER_STALL)
    return min(num_workers / _WORDS_PER_SECOND, most)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """One worker, from when it is asked for.

    wanted: it was asked for; a slot may be given up. placed, ready: it runs on a node; its engine is up.
    leaving: it was told to stop. since: when it was asked for, then placed. moved: when its engine last
    got on, or had no need to. work: tokens that it had read and written, and partitions stored, by then.
    storing: it waits for storage.
    """

    since: float
    moved: float
    wanted: bool = True
    placed: bool = False
    ready: bool = False
    leaving: bool = False
    tally: Tally = field(default_factory=Tally)
    engine: EngineStats = field(default_factory=EngineStats)
    storage_retries: int = 0
    committed_rows: int = 0
    dropped_rows: int = 0
    work: int = -1
    storing: bool = False

    @property
    def unwritten_rows(self) -> int:
        """Rows that it had finished by its last word, and that are in no file yet."""
        return max(0, self.tally.rows - self.committed_rows - self.dropped_rows)


class Fleet:
    """The workers of a run by slot, and the sums over them and those that were lost.

    engines: the work of all, storage_retries: of all workers, those that were lost included.
    num_ready: engines that are up. num_starting, num_waiting: workers that are placed and not up, and those
    that have found no node yet. num_wanted: all three.
    """

    def __init__(self, *, stall_timeout_seconds: float, start_timeout_seconds: float, now: float) -> None:
        self._stall = stall_timeout_seconds
        self._start = start_timeout_seconds
        self._workers: list[WorkerState] = []
        self._deadlines = SlotRanking[float]()
        self._last_placed = now
        self._rows = self._user_tokens = self._assistant_tokens = 0
        self._rejected = Counter[str]()
        self.engines = EngineStats()
        self.first_ready: float | None = None
        self.lost = self.lost_rows = self.unwritten_rows = self.storage_retries = 0
        self.num_ready = self.num_starting = self.num_waiting = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, slot: int) -> WorkerState:
        return self._workers[slot]

    def _set(self, slot: int, worker: WorkerState) -> None:
        """All that happens to a worker comes by here, and is counted."""
        for state, sign in ((self._workers[slot], -1), (worker, 1)):
            self.num_ready += sign * state.ready
            self.num_starting += sign * (state.placed and not state.ready)
            self.num_waiting += sign * (state.wanted and not state.placed)
            self.unwritten_rows += sign * state.unwritten_rows
        self._workers[slot] = worker
        self._deadlines.put(slot, self._deadline(worker))

    def _deadline(self, worker: WorkerState) -> float | None:
        if worker.ready:
            return worker.moved + (max(self._stall, _STORING_SECONDS) if worker.storing else self._stall)
        return worker.since + self._start if worker.placed else None

    def ask_for(self, slot: int, now: float) -> None:
        """A worker for the slot, the next new one or one that was lost, is on its way."""
        if slot == len(self._workers):
            self._workers.append(WorkerState(since=now, moved=now, wanted=False))
        self._set(slot, WorkerState(since=now, moved=now))

    def place(self, slot: int, now: float) -> None:
        self._set(slot, replace(self._workers[slot], placed=True, since=now))

    def get_ready(self, slot: int, now: float) -> None:
        self._set(slot, replace(self._workers[slot], placed=True, ready=True, moved=now))
        self.first_ready = self.first_ready or now

    def progress(self, slot: int, event: Progress, *, has_work: bool, now: float) -> None:
        """A worker that does nothing although it was given work is no better than one that stands still."""
        worker = self._workers[slot]
        work = event.engine.work + event.stored
        moved = worker.moved if has_work and work == worker.work else now
        self._set(
            slot,
            replace(
                self._counted(worker, event),
                storing=event.doing == "storing",
                work=work,
                moved=moved,
            ),
        )

    def tell(self, slot: int, event: Progress) -> None:
        """What a worker that leaves has generated in all."""
        self._set(slot, self._counted(self._workers[slot], event))

    def _counted(self, worker: WorkerState, event: Progress) -> WorkerState:
        """The worker with the totals of its event, which are added to those of the fleet."""
        tally, before = event.tally, worker.tally
        self._rows += tally.rows - before.rows
        self._user_tokens += tally.user_tokens - before.user_tokens
        self._assistant_tokens += tally.assistant_tokens - before.assistant_tokens
        self._rejected.update(tally.rejected)
        self._rejected.subtract(before.rejected)
        self.engines = EngineStats.sum([self.engines, event.engine.since(worker.engine)])
        self.storage_retries += event.storage_retries - worker.storage_retries
        return replace(
            worker,
            tally=tally,
            engine=event.engine,
            storage_retries=event.storage_retries,
            dropped_rows=event.dropped_rows,
        )

    def commit(self, slot: int, rows: int) -> None:
        """So many rows of the worker are in files now."""
        worker = self._workers[slot]
        self._set(slot, replace(worker, committed_rows=worker.committed_rows + rows))

    def leave(self, slot: int) -> None:
        """The worker was told to stop."""
        self._set(slot, replace(self._workers[slot], leaving=True))

    def lose(self, slot: int, *, rows_to_redo: int, now: float) -> int:
        """The worker is gone; returns how many of the rows that others have to redo it had finished."""
        rows = min(self._workers[slot].unwritten_rows, rows_to_redo)
        self.lost += 1
        self.lost_rows += rows
        self._set(slot, WorkerState(since=now, moved=now, wanted=False))
        return rows

    def overdue(self, now: float) -> list[tuple[int, str]]:
        """Slots whose worker is to be replaced, and why."""
        return [(slot, self._why(self._workers[slot], now)) for slot in self._deadlines.until(now)]

    def _why(self, worker: WorkerState, now: float) -> str:
        if not worker.ready:
            return f"its engine was not up after {self._start:g} s (cluster.start_timeout_seconds)"
        if worker.storing:
            return f"storage has taken nothing from it for {now - worker.moved:.0f} s"
        return f"no token from its engine for {self._stall:g} s (cluster.stall_timeout_seconds)"

    def none_placed(self, now: float) -> bool:
        """Whether for cluster.start_timeout_seconds no worker at all has found a node."""
        if self.num_ready or self.num_starting:
            self._last_placed = now
        return now - self._last_placed > self._start

    @property
    def ready(self) -> list[int]:
        """Slots whose engine is up."""
        return [slot for slot, worker in enumerate(self._workers) if worker.ready]

    @property
    def num_wanted(self) -> int:
        return self.num_ready + self.num_starting + self.num_waiting

    @property
    def tally(self) -> Tally:
        """What all workers have generated, those that were lost included."""
        return Tally(
            rows=self._rows,
            rejected={reason: number for reason, number in self._rejected.items() if number},
            user_tokens=self._user_tokens,
            assistant_tokens=self._assistant_tokens,
        )
