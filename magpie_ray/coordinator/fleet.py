"""The state of each slot's current worker, and what its silence means.

Times are seconds of one monotonic clock, given by the caller. Invariants: a worker that has work and does not
advance, that stores and is not heard, or whose engine does not come up, is overdue after a bounded time. Only
processed tokens, messages that were accepted or rejected, and stored partitions count as progress. No event
and no question costs more with ten thousand workers than with ten: sums change by the difference that an
event makes, and deadlines are ranked.
"""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from magpie_ray.coordinator.ranking import SlotRanking
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.storage.storage import RETRY_SECONDS
from magpie_ray.worker.events import Progress
from magpie_ray.worker.spec import PROGRESS_SECONDS

# A worker gives up a store that fails before that time is over; a store that takes longer hangs.
_STORING_SECONDS = RETRY_SECONDS + 600.0
# A driver that was suspended for hours finds thousands of reports of each worker, and takes two a second.
_BACKLOG_SECONDS = 3600.0
# Ray takes about 1 ms of a core to bring the driver one event: so many a second from all workers together,
# while each is still heard every 50 s, and ten times before it counts as stalled.
_REPORTS_PER_SECOND = 20
_LONGEST_SILENCE_SECONDS, _REPORTS_PER_STALL = 50.0, 10

# gone: there is no worker, nor is one to come. delayed: one is to be requested later. waiting: for a node.
# starting: it has one. up: its engine is.
Stage = Literal["gone", "delayed", "waiting", "starting", "up"]


def progress_seconds(num_workers: int, *, stall_timeout_seconds: float) -> float:
    """Seconds between two progress reports of each of so many workers."""
    longest = min(_LONGEST_SILENCE_SECONDS, stall_timeout_seconds / _REPORTS_PER_STALL)
    return max(PROGRESS_SECONDS, min(num_workers / _REPORTS_PER_SECOND, longest))


_NO_REPORT = Progress(tally=Tally(), engine=EngineStats(), started=0, live_window=0, doing="nothing")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """One worker. since: when it was requested, then when it was placed. report: its last progress.

    advanced: when a report last showed new work, or none was to be done. heard: when the last report came.
    leaving: it was told to stop.
    """

    stage: Stage
    since: float
    advanced: float
    heard: float = 0.0
    leaving: bool = False
    report: Progress | None = None
    committed_rows: int = 0

    @property
    def unwritten_rows(self) -> int:
        """Rows that the worker has finished and that are in no file yet."""
        report = self.report or _NO_REPORT
        return max(0, report.tally.rows - self.committed_rows - report.dropped_rows)

    @property
    def storing(self) -> bool:
        """Whether the worker waits for storage."""
        return self.report is not None and self.report.doing == "storing"


class Fleet:
    """The workers of a run by slot, and sums over them. own_rules: the user's own acceptance rules.

    tally, engines, storage_retries: of all workers that there were, lost ones included. unwritten_rows: of
    the current workers. lost: workers that were lost or left; lost_rows: rows that they had finished and that
    others have to generate again. first_ready: when the first engine came up.
    """

    def __init__(
        self, *, stall_timeout_seconds: float, start_timeout_seconds: float, own_rules: Sequence[str] = ()
    ) -> None:
        self._own_rules = own_rules
        self._stall = stall_timeout_seconds
        self._start = start_timeout_seconds
        self._workers: list[WorkerState] = []
        self._stages = Counter[Stage]()
        self._deadlines = SlotRanking[float]()
        self.tally, self.engines, self.storage_retries = Tally(), EngineStats(), 0
        self.lost = self.lost_rows = self.unwritten_rows = 0
        self.first_ready: float | None = None

    def __len__(self) -> int:
        return len(self._workers)

    def __getitem__(self, slot: int) -> WorkerState:
        return self._workers[slot]

    def num(self, stage: Stage) -> int:
        """The number of workers in that stage."""
        return self._stages[stage]

    @property
    def num_wanted(self) -> int:
        """Workers that are up or to come."""
        return len(self) - self.num("gone")

    @property
    def ready(self) -> list[int]:
        """Slots whose engine is up."""
        return [slot for slot, worker in enumerate(self._workers) if worker.stage == "up"]

    @property
    def waiting(self) -> list[int]:
        """Slots whose worker waits for a node."""
        return [slot for slot, worker in enumerate(self._workers) if worker.stage == "waiting"]

    @property
    def starting(self) -> list[int]:
        """Slots whose worker has a node, and whose engine is not up yet."""
        return [slot for slot, worker in enumerate(self._workers) if worker.stage == "starting"]

    def expect(self, slot: int, now: float) -> None:
        """A worker is to be requested later for the slot: the next new one, or one whose worker is gone."""
        if slot == len(self._workers):
            self._workers.append(WorkerState(stage="gone", since=now, advanced=now))
            self._stages["gone"] += 1
        self._set(slot, WorkerState(stage="delayed", since=now, advanced=now))

    def request(self, slot: int, now: float) -> None:
        """A worker is requested for the slot, which is the next new one or one whose worker is gone."""
        self.expect(slot, now)
        self._set(slot, WorkerState(stage="waiting", since=now, advanced=now))

    def place(self, slot: int, now: float) -> None:
        self._change(slot, stage="starting", since=now)

    def get_ready(self, slot: int, now: float) -> None:
        self._change(slot, stage="up", advanced=now)
        self.first_ready = self.first_ready or now

    def progress(self, slot: int, event: Progress, *, has_work: bool, now: float) -> None:
        """A report came. has_work: the worker was given partitions that it has not finished."""
        worker = self._workers[slot]
        stands_still = has_work and worker.report is not None and event.work == worker.report.work
        # What it waited for is there, and its first step begins.
        stands_still &= not (worker.storing and event.doing == "generating")
        before = worker.report or _NO_REPORT
        self.tally = Tally.sum([self.tally, event.tally.since(before.tally)])
        self.engines = EngineStats.sum([self.engines, event.engine.since(before.engine)])
        self.storage_retries += event.storage_retries - before.storage_retries
        self._change(slot, report=event, advanced=worker.advanced if stands_still else now, heard=now)

    def commit(self, slot: int, rows: int) -> None:
        """So many more rows of the worker are in files."""
        self._change(slot, committed_rows=self._workers[slot].committed_rows + rows)

    def leave(self, slot: int) -> None:
        """The worker was told to stop."""
        self._change(slot, leaving=True)

    def lose(self, slot: int, *, rows_to_redo: int, now: float) -> int:
        """The worker is gone. Returns how many of the rows that others have to redo it had finished."""
        rows = min(self._workers[slot].unwritten_rows, rows_to_redo)
        self.lost += 1
        self.lost_rows += rows
        self._set(slot, WorkerState(stage="gone", since=now, advanced=now))
        return rows

    def _change(self, slot: int, **changes: Any) -> None:
        self._set(slot, replace(self._workers[slot], **changes))

    def _set(self, slot: int, worker: WorkerState) -> None:
        """Every change of a worker goes through here."""
        before = self._workers[slot]
        self._stages[before.stage] -= 1
        self._stages[worker.stage] += 1
        self.unwritten_rows += worker.unwritten_rows - before.unwritten_rows
        self._workers[slot] = worker
        self._deadlines.put(slot, self._deadline(worker))

    def _deadline(self, worker: WorkerState) -> float | None:
        if worker.stage == "up" and worker.storing:
            # It reports while it waits, so a silent one is as dead as one whose engine makes no token.
            return min(worker.advanced + max(self._stall, _STORING_SECONDS), worker.heard + self._stall)
        if worker.stage == "up":
            return worker.advanced + self._stall
        return worker.since + self._start if worker.stage == "starting" else None

    def overdue(self, now: float, *, heard: Set[int] = frozenset()) -> list[tuple[int, str]]:
        """Slots whose worker is to be replaced, and why.

        heard: slots with an event in the last turn, of which more may wait. Only after its last one is known
        how the worker stands now.
        """
        late = self._deadlines.until(now)
        if not heard.isdisjoint(late):
            very_late = set(self._deadlines.until(now - _BACKLOG_SECONDS))
            late = [slot for slot in late if slot not in heard or slot in very_late]
        return [(slot, self._why(self._workers[slot], now)) for slot in late]

    def _why(self, worker: WorkerState, now: float) -> str:
        if worker.stage == "starting":
            return f"its engine was not up after {self._start:g} s (cluster.start_timeout_seconds)"
        if worker.storing and now - worker.heard >= self._stall:
            return f"no report from it for {self._stall:g} s (cluster.stall_timeout_seconds)"
        if worker.storing:
            return f"storage has taken nothing from it for {now - worker.advanced:.0f} s"
        if worker.report and (rule := worker.report.awaited_rule):
            return (
                f"the acceptance rule {rule} has taken more than {self._stall:g} s for one message "
                "(cluster.stall_timeout_seconds): give it a time limit of its own"
            )
        # A rule inside one call of C code, such as a regular expression, silences the whole process.
        rules = f". Or a rule holds the process up: {', '.join(self._own_rules)}" if self._own_rules else ""
        return f"no token from its engine for {self._stall:g} s (cluster.stall_timeout_seconds){rules}"
