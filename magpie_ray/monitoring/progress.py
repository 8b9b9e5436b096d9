"""The progress of a running job: live on a terminal or in a notebook, or a line in the log every half minute.

Owns only the rendering of snapshots; the job computes the numbers.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.text import Text

from magpie_ray.coordinator.watcher import JobEvent, Snapshot, Watcher
from magpie_ray.counters import work_of
from magpie_ray.monitoring.notebook import ChangingLine
from magpie_ray.utils.logs import terminal
from magpie_ray.utils.text import clock_text, counted, percent
from magpie_ray.worker.events import Committed

log = logging.getLogger(__name__)

_BAR_WIDTH = 20  # the longest line beside it fits 80 columns
# A notebook's page draws each change anew.
_NOTEBOOK_SECONDS = 1.0
_LAST_STAGE = "writing the report, the card and the last records"


class ProgressDisplay(Watcher):
    """A watcher of a job, and a context.

    live: draw, if the console is a terminal or a notebook's; otherwise log a line every `log_seconds`.
    clock: in seconds, monotonic.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        live: bool = True,
        log_seconds: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or terminal()
        self._live: Live | None = None
        self._below = _Below(clock)
        if live and console.is_terminal:
            columns = BarColumn(_BAR_WIDTH), TaskProgressColumn(), TextColumn("{task.description}")
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("", total=None)
            self._live = Live(Group(self._bar, self._below), console=console)
        self._cell = ChangingLine() if live and console.is_jupyter else None
        self._last: Snapshot | None = None
        self._log_seconds = _NOTEBOOK_SECONDS if self._cell else log_seconds
        self._clock = clock
        self._told_at = -math.inf
        self._stage_began = clock()
        self._stage, self._most_rows, self._is_told = "", 0, True

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._last and not self._is_told:
            if self._last.generated.attempts:
                self._stage = ""  # what stays to be read are the rates
            self._tell(self._last)
        if self._live:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Draw, or log if it is time. The last snapshot is told on leaving the context."""
        self._most_rows = max(self._most_rows, snapshot.rows)
        if (now := stage(snapshot)) != self._stage:
            self._stage, self._stage_began = now, self._clock()
        self._last, self._is_told = snapshot, False
        if self._live:
            self._tell(snapshot)
        elif self._clock() - self._told_at >= self._log_seconds:
            self._told_at, self._is_told = self._clock(), True
            self._tell(snapshot)

    def note_last(self) -> None:
        """No actor is at work any more; the report still takes a while."""
        self._below.text = _LAST_STAGE

    def hear(self, slot: int, event: JobEvent) -> None:
        """Log each commit at debug level."""
        if isinstance(event, Committed):
            log.debug(
                "slot %d: %s committed after %.1f s, of which the upload took %.1f s",
                slot,
                event.partition,
                event.seconds,
                event.upload_seconds,
            )

    def _parts(self, snapshot: Snapshot) -> tuple[str, str, str, str]:
        """The parts, with no fewer rows than before, and with a stage and its time in place of rates.

        A lost actor takes finished rows with it: the snapshot counts them as lost, and they come again.
        """
        _, rates, eta, actors = parts(snapshot)
        if self._stage:
            rates = f"{self._stage}, {clock_text(self._clock() - self._stage_began)}"
        return f"{self._most_rows:,}/{snapshot.num_rows:,} rows", rates, eta, actors

    def _tell(self, snapshot: Snapshot) -> None:
        told = rows, rates, eta, actors = self._parts(snapshot)
        if self._live:
            self._bar.update(
                self._task,
                total=snapshot.num_rows,
                completed=self._most_rows,
                description=f"{rows}, {eta}",
            )
            self._below.text = f"{rates}, {actors}"
        elif self._cell:
            self._cell.show(", ".join(told))
        else:
            log.info("%s", ", ".join(told), extra=dict(snapshot.fields()))


class _Below:
    """The line below the bar, with the time that has passed whenever it is drawn."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.text = ""
        self._clock, self._began = clock, clock()

    def __rich__(self) -> Text:
        elapsed = clock_text(self._clock() - self._began)
        return Text(f"{self.text}, {elapsed} elapsed" if self.text else f"{elapsed} elapsed")


def stage(snapshot: Snapshot) -> str:
    """What a run is waiting for before its first finished attempt and behind its last row; else ""."""
    if snapshot.generated.attempts:
        if snapshot.rows < snapshot.num_rows:
            return ""
        is_committed = snapshot.committed_rows >= snapshot.num_rows
        return "waiting for actors to leave" if is_committed else "waiting for the last files"
    if snapshot.actors_up:
        return "first round"
    return "loading the model" if snapshot.actors_starting else "starting actors"


def line(snapshot: Snapshot) -> str:
    """A snapshot in one line."""
    return ", ".join(parts(snapshot))


def parts(snapshot: Snapshot) -> tuple[str, str, str, str]:
    """Rows, rates, time left (at the mean rate so far) and actors. Figures that do not exist yet are "-".

    A rate is what was finished since the first engine was up, over the time since then.
    """
    share = "-" if snapshot.accepted is None else percent(snapshot.accepted)
    accepted = "scored" if snapshot.job == "score" else "accepted"
    eta = "-" if snapshot.seconds_left is None else clock_text(snapshot.seconds_left)
    states = {
        "starting": snapshot.actors_starting,
        "waiting": snapshot.actors_waiting,
        "replaced": snapshot.lost,
    }
    others = [f"{number} {state}" for state, number in states.items() if number]
    return (
        f"{snapshot.rows:,}/{snapshot.num_rows:,} rows",
        f"{snapshot.rows_per_second:,.1f} rows/s, "
        f"{snapshot.tokens_per_second:,.0f} {work_of(snapshot.job)}/s, {share} {accepted}",
        f"ETA {eta}",
        ", ".join([f"{counted(snapshot.actors_up, 'actor')} up", *others]),
    )
