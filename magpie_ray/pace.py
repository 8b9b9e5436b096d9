"""How fast a worker finishes rows, and when it will be done with what it has: estimates from its reports.

Times are seconds of one monotonic clock, given by the caller.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """One worker's rows over time. since: when it was first given any. moved: when the last one ended."""

    since: float
    moved: float
    finished: int = 0

    @classmethod
    def starting(cls, now: float) -> "Pace":
        """Of a worker that is given its first rows now."""
        return cls(since=now, moved=now)

    def note(self, finished: int, now: float) -> None:
        """The worker has finished so many rows since it started."""
        if finished > self.finished:
            self.finished, self.moved = finished, now

    @property
    def rows_per_second(self) -> float | None:
        """Until its last row: who waits for work is not slow. None before the first one."""
        return self.finished / max(self.moved - self.since, 1e-9) if self.finished else None

    def seconds_left(self, rows: int, now: float) -> float:
        """Until so many more are finished. Who stood still for a minute is expected to do so for another."""
        if rows <= 0:
            return 0.0
        rate = self.rows_per_second
        return max(rows / rate if rate else 0.0, now - self.moved)
