"""One virtual engine: its open partitions, and how far it is with each."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from magpie_ray.counters import EngineStats, Tally
from magpie_ray.types import Partition
from magpie_ray.worker.events import Progress
from tests.chaos.week.prompts import Prompts, Work

TOKENS_PER_ATTEMPT = 400
_USER_TOKENS = 30


def tally_of(rows: int, attempts: int) -> Tally:
    """The tally of so many finished rows and all attempts at them."""
    rejected = max(0, attempts - rows)
    return Tally(
        rows=rows,
        rejected={"refusal": rejected // 3, "repetition": rejected - rejected // 3},
        user_tokens=_USER_TOKENS * attempts,
        assistant_tokens=(TOKENS_PER_ATTEMPT - _USER_TOKENS) * attempts,
    )


@dataclass(slots=True, eq=False)
class OpenPartition:
    """A partition that the engine has begun, or will begin, at `begin` of its own time."""

    partition: Partition
    work: Work
    begin: float
    given: float
    uploading: bool = False

    def finished(self, at: float) -> int:
        return self.work.finished(at - self.begin) if at > self.begin else 0

    def spent(self, at: float) -> float:
        """Seconds of the whole batch that went into it."""
        return min(max(0.0, at - self.begin), self.work.seconds)

    def tail(self, at: float) -> float:
        """Seconds in which its last rows alone were under way."""
        return max(0.0, min(at - self.begin, self.work.length) - self.work.seconds)

    def started(self, at: float) -> int:
        """Rows of it that have begun."""
        rows = self.partition.num_rows
        return (
            min(rows, int(rows * max(0.0, at - self.begin) / self.work.seconds) + 1) if at > self.begin else 0
        )


@dataclass(slots=True)
class Engine:
    """What a worker has done since its engine was up at `since`.

    speed: 1 for a healthy one; hung: from when on.
    """

    prompts: Prompts
    live_window: int
    since: float
    speed: float = 1.0
    hung: float | None = None
    open: list[OpenPartition] = field(default_factory=list)
    end: float = 0.0  # of its own time: when its batch is no longer full
    idle: float = 0.0  # of its own time: with a batch that was not full
    received: int = 0
    closed_rows: int = 0  # finished rows of partitions that are not open any more
    closed_attempts: int = 0
    closed_tail: float = 0.0  # seconds in which the last rows of such partitions were alone
    dropped_rows: int = 0
    stored: int = 0
    accepted: NDArray[np.int64] = field(init=False)  # attempts by prompt group
    rejected: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.accepted = np.zeros_like(self.prompts.rejected, dtype=np.int64)
        self.rejected = np.zeros_like(self.accepted)

    def judge(self, work: Work) -> str | None:
        """Count all attempts of a partition. Returns why one of its rows ends the build."""
        why = self.prompts.exhausted(work, self.accepted, self.rejected)
        groups = len(self.accepted)
        self.accepted += np.bincount(work.groups, minlength=groups)
        self.rejected += np.bincount(work.groups, weights=work.attempts - 1, minlength=groups).astype(
            np.int64
        )
        return why

    def time(self, now: float) -> float:
        """The engine's own time: seconds at the speed of a healthy one."""
        if self.hung is not None:
            now = min(now, self.hung)
        return (now - self.since) * self.speed

    def when(self, time: float) -> float:
        """Virtual time at which its own time is `time`."""
        return self.since + time / self.speed

    def give(self, partition: Partition, now: float) -> OpenPartition:
        begin = max(self.end, self.time(now))
        self.idle += begin - self.end
        opened = OpenPartition(partition, self.prompts.draw(partition), begin, now)
        self.open.append(opened)
        self.end = begin + opened.work.seconds
        self.received += partition.num_rows
        return opened

    def close(self, opened: OpenPartition, now: float, *, dropped: bool) -> int:
        """Forget the partition; returns its finished rows. What comes after a dropped one moves up."""
        at = self.time(now)
        rows = opened.finished(at)
        self.open.remove(opened)
        self.closed_rows += rows
        self.closed_tail += opened.tail(at)
        self.closed_attempts += round(opened.work.total * opened.spent(at) / opened.work.seconds)
        if dropped:
            self.dropped_rows += rows
            saved = opened.work.seconds - opened.spent(at)
            for later in self.open:
                if later.begin > max(at, opened.begin):
                    later.begin = max(at, later.begin - saved)
            self.end = max([at, *(later.begin + later.work.seconds for later in self.open)])
        else:
            self.stored += 1
        return rows

    def unstarted(self, now: float) -> int:
        at = self.time(now)
        return sum(o.partition.num_rows - o.started(at) for o in self.open if o.begin + o.work.seconds > at)

    def lost(self, now: float) -> tuple[int, float]:
        """Finished rows that are in no file, and the seconds that went into all that is open."""
        at = self.time(now)
        return sum(o.finished(at) for o in self.open), sum(o.spent(at) for o in self.open)

    def heads(self, now: float) -> Iterator[tuple[OpenPartition, int]]:
        """The finished head of each open partition that has one."""
        at = self.time(now)
        for opened in self.open:
            if not opened.uploading and (rows := opened.work.head(at - opened.begin)):
                yield opened, rows

    def progress(self, now: float) -> Progress:
        at = self.time(now)
        rows, attempts = self.closed_rows, float(self.closed_attempts)
        for opened in self.open:
            rows += opened.finished(at)
            attempts += opened.work.total * opened.spent(at) / opened.work.seconds
        # Last rows, which may be tried many times, are never without a token.
        tail = self.closed_tail + sum(opened.tail(at) for opened in self.open)
        tokens = int(TOKENS_PER_ATTEMPT * (attempts + tail / self.prompts.attempt_seconds))
        generating = any(not opened.uploading for opened in self.open)
        steps = int(at * 20)
        return Progress(
            tally=tally_of(rows, max(rows, int(attempts))),
            engine=EngineStats(
                steps=steps,
                slots=steps * self.live_window,
                running=steps * self.live_window,
                generated_tokens=tokens,
                prompt_tokens=int(attempts * TOKENS_PER_ATTEMPT),
            ),
            started=self.received - self.unstarted(now),
            live_window=self.live_window,
            doing="generating" if generating else "storing" if self.open else "nothing",
            dropped_rows=self.dropped_rows,
            stored=self.stored,
        )
