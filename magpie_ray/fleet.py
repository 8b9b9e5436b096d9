"""What is known of each slot's current worker, and what is to be concluded from its silence.

Times are seconds of one monotonic clock, given by the caller. What always holds: an engine that is to get on
and does not, or that does not come up, is overdue after a bounded time; pings are no progress, nor are steps
in which no token is read or written.
"""

from dataclasses import dataclass, field

from magpie_ray.metrics import Tally
from magpie_ray.storage import RETRY_SECONDS
from magpie_ray.worker import Progress

# By then a store that fails has been given up by the worker itself; one that does neither hangs.
_STORING_SECONDS = 2 * RETRY_SECONDS


@dataclass(slots=True)
class WorkerState:
    """One worker, from when it is asked for.

    wanted: it was asked for; a slot may be given up. placed, ready: it runs on a node; its engine is up.
    leaving: it was told to stop. since: when it was asked for, then placed. moved: when its engine last
    got on, or had no need to. work: tokens that it had read and
    written, and partitions stored, by then. storing: it waits for storage.
    """

    since: float
    moved: float
    wanted: bool = True
    placed: bool = False
    ready: bool = False
    leaving: bool = False
    tally: Tally = field(default_factory=Tally)
    committed_rows: int = 0
    work: int = -1
    storing: bool = False

    @property
    def unwritten_rows(self) -> int:
        """Rows that it had finished by its last word, and that are in no file."""
        return max(0, self.tally.rows - self.committed_rows)


class Fleet:
    """The workers of a run by slot, and the sums over them and those that were lost."""

    def __init__(self, *, stall_timeout_seconds: float, start_timeout_seconds: float, now: float) -> None:
        self._stall = stall_timeout_seconds
        self._start = start_timeout_seconds
        self._workers: list[WorkerState] = []
        self._lost_tally = Tally()
        self._last_placed = now
        self.first_ready: float | None = None
        self.lost = 0
        self.lost_rows = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, slot: int) -> WorkerState:
        return self._workers[slot]

    def ask_for(self, slot: int, now: float) -> None:
        """A worker for the slot, the next new one or one that was lost, is on its way."""
        worker = WorkerState(since=now, moved=now)
        if slot == len(self._workers):
            self._workers.append(worker)
        self._workers[slot] = worker

    def place(self, slot: int, now: float) -> None:
        self._workers[slot].placed, self._workers[slot].since = True, now

    def get_ready(self, slot: int, now: float) -> None:
        worker = self._workers[slot]
        worker.placed = worker.ready = True
        worker.moved = now
        self.first_ready = self.first_ready or now

    def progress(self, slot: int, event: Progress, *, has_work: bool, now: float) -> None:
        """A worker that does nothing although it was given work is no better than one that stands still."""
        worker = self._workers[slot]
        worker.tally = event.tally
        worker.storing = event.doing == "storing"
        work = event.engine.work + event.stored
        if work != worker.work or not has_work:
            worker.work, worker.moved = work, now

    def lose(self, slot: int, *, open_rows: int, now: float) -> int:
        """The worker is gone; returns how many finished rows of its open partitions went with it."""
        worker = self._workers[slot]
        rows = min(worker.unwritten_rows, open_rows)
        self.lost += 1
        self.lost_rows += rows
        self._lost_tally = Tally.sum([self._lost_tally, worker.tally])
        self._workers[slot] = WorkerState(since=now, moved=now, wanted=False)
        return rows

    def overdue(self, now: float) -> list[tuple[int, str]]:
        """Slots whose worker is to be replaced, and why."""
        found = []
        for slot, worker in enumerate(self._workers):
            silent = now - worker.moved
            if worker.ready and worker.storing and silent > max(self._stall, _STORING_SECONDS):
                found.append((slot, f"storage has taken nothing from it for {silent:.0f} s"))
            elif worker.ready and not worker.storing and silent > self._stall:
                key = "cluster.stall_timeout_seconds"
                found.append((slot, f"no token from its engine for {self._stall:g} s ({key})"))
            elif worker.placed and not worker.ready and now - worker.since > self._start:
                key = "cluster.start_timeout_seconds"
                found.append((slot, f"its engine was not up after {self._start:g} s ({key})"))
        return found

    def none_placed(self, now: float) -> bool:
        """Whether for cluster.start_timeout_seconds no worker at all has found a node."""
        if any(worker.placed for worker in self._workers):
            self._last_placed = now
        return now - self._last_placed > self._start

    @property
    def ready(self) -> list[int]:
        """Slots whose engine is up."""
        return [slot for slot, worker in enumerate(self._workers) if worker.ready]

    @property
    def num_starting(self) -> int:
        return sum(worker.placed and not worker.ready for worker in self._workers)

    @property
    def num_waiting(self) -> int:
        """Workers that have found no node yet."""
        return sum(worker.wanted and not worker.placed for worker in self._workers)

    @property
    def num_wanted(self) -> int:
        return sum(worker.wanted for worker in self._workers)

    @property
    def unwritten_rows(self) -> int:
        return sum(worker.unwritten_rows for worker in self._workers)

    @property
    def tally(self) -> Tally:
        """What all workers have generated, those that were lost included."""
        return Tally.sum([self._lost_tally, *(worker.tally for worker in self._workers)])
