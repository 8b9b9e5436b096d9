"""What a running job tells: a live line on a terminal, a plain line now and then in a log.

Pure rendering of snapshots; how the numbers come about is the job's business.
"""

import logging
import math
import time
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

log = logging.getLogger(__name__)

LOG_SECONDS = 30.0
_WIDE_COLUMNS = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A job at one moment. Rates are over `seconds`, the time since the first engine was up.

    actors_starting: placed on a node, with an engine that is not up yet. lost, lost_rows: actors that were
    lost, and the finished rows that went with them and are generated again.
    """

    num_rows: int
    rows: int
    rows_this_run: int
    tokens: int
    rejected: int
    attempts: int
    actors_up: int
    actors_starting: int
    actors_wanted: int
    lost: int
    lost_rows: int
    seconds: float

    @property
    def rows_per_second(self) -> float:
        return self.rows_this_run / self.seconds if self.seconds > 0 else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> str:
        """Time left at the mean rate so far; "-" before there is one."""
        if not self.rows_per_second:
            return "-"
        left = int((self.num_rows - self.rows) / self.rows_per_second)
        hours, minutes, seconds = left // 3600, left // 60 % 60, left % 60
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    def starting(self) -> str:
        """Before the first engine is up."""
        waiting = self.actors_wanted - self.actors_starting
        told = f", {waiting} wait for a node" if waiting else ""
        return f"starting {self.actors_starting} engines{told}"

    def line(self) -> str:
        """Everything but the bar, in one line; what matters least comes last, where narrow terminals cut."""
        accepted = f"{1 - self.rejected / self.attempts:.1%}" if self.attempts else "-"
        actors = f"{self.actors_up}/{self.actors_wanted} actors"
        lost = f", {self.lost} replaced" if self.lost else ""
        return (
            f"{self.rows:,}/{self.num_rows:,} rows, {self.rows_per_second:,.1f} rows/s, "
            f"{self.tokens_per_second:,.0f} tokens/s, ETA {self.eta}, {actors}{lost}, {accepted} accepted"
        )


@cache
def terminal() -> Console:
    """Standard error. One console for the bar and the log, so that neither writes into the other."""
    return Console(stderr=True)


class ProgressDisplay:
    """A context: `show` as often as you like, it draws or logs as often as is useful."""

    def __init__(self, console: Console | None = None) -> None:
        console = console or terminal()
        self._bar: Progress | None = None
        if console.is_terminal:
            bar = BarColumn(bar_width=24 if console.width >= _WIDE_COLUMNS else 8)
            columns = (bar, TaskProgressColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=False)
            self._task = self._bar.add_task("starting", total=None)
        self._last: Snapshot | None = None
        self._logged_at = -math.inf

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self._last:
            log.info("%s", self._last.line())

    def show(self, snapshot: Snapshot) -> None:
        """Draw, or log when the last line is old enough. On leaving the context the last one is logged."""
        if self._bar:
            text = snapshot.line() if snapshot.actors_up else snapshot.starting()
            self._bar.update(self._task, total=snapshot.num_rows, completed=snapshot.rows, description=text)
            return
        self._last = snapshot
        if time.monotonic() - self._logged_at >= LOG_SECONDS:
            self._logged_at, self._last = time.monotonic(), None
            log.info("%s", snapshot.line())
