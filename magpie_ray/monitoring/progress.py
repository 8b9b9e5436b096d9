"""The progress of a running job: a live display on a terminal, or a line in the log every half minute.

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
from magpie_ray.utils.logs import terminal
from magpie_ray.utils.text import clock_text, counted, percent
from magpie_ray.worker.events import Committed

log = logging.getLogger(__name__)

_BAR_WIDTH = 20  # the longest line beside it fits 80 columns


class ProgressDisplay(Watcher):
    """A watcher of a job, and a context.

    live: draw, if the console is a terminal; otherwise log a line every `log_seconds`. clock: in seconds,
    monotonic.
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
        if live and console.is_terminal:
            columns = BarColumn(_BAR_WIDTH), TaskProgressColumn(), TextColumn("{task.description}")
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("", total=None)
            self._live = Live(self._bar, console=console)
        self._last: Snapshot | None = None
        self._log_seconds = log_seconds
        self._clock = clock
        self._logged_at = -math.inf
        self._began = self._stage_began = clock()
        self._stage, self._most_rows = "", 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        elif self._last:
            self._log(self._last)

    def show(self, snapshot: Snapshot) -> None:
        """Draw, or log if it is time. The last snapshot is logged on leaving the context."""
        self._most_rows = max(self._most_rows, snapshot.rows)
        if (now := stage(snapshot)) != self._stage:
            self._stage, self._stage_began = now, self._clock()
        if self._live:
            rows, rates, eta, actors = self._parts(snapshot)
            self._bar.update(
                self._task,
                total=snapshot.num_rows,
                completed=self._most_rows,
                description=f"{rows}, {eta}",
            )
            elapsed = clock_text(self._clock() - self._began)
            self._live.update(Group(self._bar, Text(f"{rates}, {actors}, {elapsed} elapsed")))
            return
        self._last = snapshot
        if self._clock() - self._logged_at >= self._log_seconds:
            self._logged_at, self._last = self._clock(), None
            self._log(snapshot)

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
        """The parts, with no fewer rows than before, and with the stage's time while there are no rates.

        A lost actor takes finished rows with it: the snapshot counts them as lost, and they come again.
        """
        _, rates, eta, actors = parts(snapshot)
        if self._stage:
            rates = f"{self._stage}, {clock_text(self._clock() - self._stage_began)}"
        return f"{self._most_rows:,}/{snapshot.num_rows:,} rows", rates, eta, actors

    def _log(self, snapshot: Snapshot) -> None:
        log.info("%s", ", ".join(self._parts(snapshot)), extra=dict(snapshot.fields()))


def stage(snapshot: Snapshot) -> str:
    """What a run without a finished attempt is waiting for; "" once there are rates to show."""
    if snapshot.generated.attempts:
        return ""
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
    accepted = "-" if snapshot.accepted is None else percent(snapshot.accepted)
    eta = "-" if snapshot.seconds_left is None else clock_text(snapshot.seconds_left)
    states = {
        "starting": snapshot.actors_starting,
        "waiting": snapshot.actors_waiting,
        "replaced": snapshot.lost,
    }
    others = [f"{number} {state}" for state, number in states.items() if number]
    return (
        f"{snapshot.rows:,}/{snapshot.num_rows:,} rows",
        f"{snapshot.rows_per_second:,.1f} rows/s, {snapshot.tokens_per_second:,.0f} tokens/s, "
        f"{accepted} accepted",
        f"ETA {eta}",
        ", ".join([f"{counted(snapshot.actors_up, 'actor')} up", *others]),
    )
