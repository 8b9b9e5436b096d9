"""How fast a build has grown: pure arithmetic over when its files were committed.

Times are seconds of one clock, the store's.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One file: when it was written, and its rows."""

    at: float
    rows: int


def rate(commits: Sequence[Commit], *, begin: float, end: float) -> float:
    """Rows/s in begin..end; 0 for no time at all."""
    rows = sum(commit.rows for commit in commits if begin < commit.at <= end)
    return rows / (end - begin) if end > begin else 0.0


def history(commits: Sequence[Commit], *, begin: float, end: float, parts: int) -> list[float]:
    """Rows/s in each of so many equal parts of begin..end, the oldest first; none for no time at all."""
    if end <= begin:
        return []
    width = (end - begin) / parts
    rows = [0] * parts
    for commit in commits:
        if begin < commit.at <= end:
            rows[min(parts - 1, int((commit.at - begin) / width))] += commit.rows
    return [number / width for number in rows]
