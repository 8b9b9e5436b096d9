"""One driver: the command as a process, and its actors as its log reports them.

Times are those of time.monotonic when a line was read.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.chaos.ground import ROOT, Ground

T = TypeVar("T")

_PLACED = re.compile(r"the actor of slot (\d+) starts on \S+, process (\d+)")
_LEFT_ALONE = re.compile(r"node \S+ \(\w+\) has failed \d+ times: no actor starts there")
_UP = re.compile(r"the engine of slot (\d+) is up after")
_LOST = re.compile(r"(?:lost )?the actor of slot (\d+)(?: left)?: (.*)")
_COST = re.compile(r"(\d+) rows of slot \d+'s partitions are generated again")

# The interval of looks at files, processes and uploads, which no log line reports.
_LOOK_SECONDS = 0.05
# A step of a run that takes longer than this on two busy cores hangs.
DEADLINE_SECONDS = 120.0
HANG_SECONDS = 60.0


class ChaosError(AssertionError):
    """Something that must happen did not happen."""


@dataclass(slots=True, eq=False)
class Actor:
    """One actor. undone_rows: rows of its partitions that it left undone, as the driver reports them."""

    slot: int
    pid: int
    placed_at: float
    up_at: float | None = None
    lost_at: float | None = None
    cause: str = ""
    undone_rows: int = 0

    @property
    def is_running(self) -> bool:
        return self.up_at is not None and self.lost_at is None


class Driver:
    """A command of `magpie-ray` with steered engines. `arguments`: its own, then KEY=VALUE."""

    def __init__(self, ground: Ground, orders: Path, *arguments: str, step_seconds: float, log: Path) -> None:
        self._log = log
        self._changed = threading.Condition()
        self.lines: list[str] = []
        self.actors: list[Actor] = []
        self.left_alone: list[float] = []  # when a node was
        self.began_at = time.monotonic()
        self.ended_at: float | None = None
        self._losing: Actor | None = None
        program = [sys.executable, "-m", "tests.chaos.program", str(orders), str(step_seconds)]
        self.process = subprocess.Popen(
            [*program, *arguments],
            cwd=ROOT,
            env=ground.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines, self._log.open("w") as log:
            for line in lines:
                log.write(line)
                log.flush()
                with self._changed:
                    self.lines.append(line.rstrip())
                    self._understand(line, time.monotonic())
                    self._changed.notify_all()
        self.process.wait()
        with self._changed:
            self.ended_at = time.monotonic()
            self._changed.notify_all()

    def _understand(self, line: str, now: float) -> None:
        if found := _PLACED.search(line):
            self.actors.append(Actor(int(found[1]), int(found[2]), now))
        elif _LEFT_ALONE.search(line):
            self.left_alone.append(now)
        elif found := _UP.search(line):
            if actor := self._latest(int(found[1])):
                actor.up_at = now
        elif found := _LOST.search(line):
            self._losing = self._latest(int(found[1]))
            if self._losing:
                self._losing.lost_at, self._losing.cause = now, found[2]
        if self._losing and (found := _COST.search(line)):  # behind the last lines of the actor's log
            self._losing.undone_rows = int(found[1])
            self._losing = None

    def _latest(self, slot: int) -> Actor | None:
        """The slot's current actor; None where it was lost and no other has a place yet."""
        found = [actor for actor in self.actors if actor.slot == slot]
        return found[-1] if found and found[-1].lost_at is None else None

    def first_up(self) -> float | None:
        """When its first engine was up, or its end where it had nothing to do."""
        up = [actor.up_at for actor in self.actors if actor.up_at is not None]
        return min(up, default=self.ended_at)

    def wait_for(self, what: str, look: Callable[[], T | None], seconds: float = DEADLINE_SECONDS) -> T:
        """What `look` finds, once it finds something. ChaosError when the driver ends or the time is over."""
        with self._changed:
            deadline = time.monotonic() + seconds
            while True:
                found = look()
                if found is not None and found is not False:
                    return found
                left = deadline - time.monotonic()
                if left <= 0 or self.ended_at is not None:
                    why = "ended" if self.ended_at is not None else f"went {seconds:.0f} s"
                    raise ChaosError(f"the driver {why} without {what}; its log is {self._log}")
                self._changed.wait(min(left, _LOOK_SECONDS))

    def wait_until_up(self) -> None:
        """Until one of its engines is up."""
        self.wait_for("an engine that is up", lambda: any(actor.up_at for actor in self.actors))

    def end(self, progress: Callable[[], int]) -> int:
        """Its exit code, once it has ended. One that makes no progress for too long is killed and told of."""
        before, deadline = progress(), time.monotonic() + HANG_SECONDS
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                self.process.kill()
                raise ChaosError(f"the driver hangs: no upload in {HANG_SECONDS:.0f} s; log {self._log}")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1.0)
            if progress() != before:
                before, deadline = progress(), time.monotonic() + HANG_SECONDS
        self._reader.join()
        return self.process.returncode

    def wait_until_ended(self) -> None:
        """ChaosError when it goes on for too long."""
        try:
            self.process.wait(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise ChaosError(f"the driver hangs: no end in {HANG_SECONDS:.0f} s; log {self._log}") from None
        self._reader.join()

    def kill(self) -> None:
        """For leaving: whatever is left of it."""
        self.process.kill()
        self.process.wait()
        self._reader.join()

    @property
    def actor_logs(self) -> str:
        return "\n".join(self.lines[-8:])


def is_alive(pid: int) -> bool:
    """Whether the process is one of Ray's workers still: numbers are used again."""
    try:
        return b"ray::" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def send(pid: int, number: signal.Signals) -> bool:
    """Signals an actor; False when it was gone already."""
    if not is_alive(pid):
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
