"""How far a build is, how fast, and whether a driver is at work, read from storage alone.

Invariants: nothing is written; ages are differences of the store's own times, if the store reports its time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from magpie_ray.counters import Tally
from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord, require_build
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.run_records import RunStatus
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """One committed file: when it was written (seconds since 1970), and its rows."""

    at: float
    rows: int


def rate(commits: Sequence[Commit], *, begin: float, end: float) -> float:
    """Rows/s in begin..end; 0 for an empty interval."""
    rows = sum(commit.rows for commit in commits if begin < commit.at <= end)
    return rows / (end - begin) if end > begin else 0.0


def history(commits: Sequence[Commit], *, begin: float, end: float, parts: int) -> list[float]:
    """Rows/s in equal parts of begin..end, the oldest first; empty for an empty interval."""
    if end <= begin:
        return []
    width = (end - begin) / parts
    rows = [0] * parts
    for commit in commits:
        if begin < commit.at <= end:
            rows[min(parts - 1, int((commit.at - begin) / width))] += commit.rows
    return [number / width for number in rows]


# complete: nothing is left to do. running: a driver is at work. gone: the last driver stopped writing without
# ending its run. stopped: the last run has ended. new: no run has started.
State = Literal["complete", "running", "gone", "stopped", "new"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """How a build is doing. num_rows: that the last run or one at work wants, or committed if that is more.

    now: the store's time.
    commits: one for each of `records` whose time the store reports, the oldest first. problems: records of
    runs that can't be understood; these runs are left out.
    """

    url: str
    build: BuildRecord
    runs: tuple[RunStatus, ...]
    records: tuple[PartitionRecord, ...]
    num_rows: int
    complete: bool
    now: float
    commits: tuple[Commit, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        if self.complete:
            return "complete"
        if any(run.alive for run in self.runs):
            return "running"
        if not self.runs:
            return "new"
        return "gone" if self.runs[-1].record.outcome == "running" else "stopped"

    @property
    def driver(self) -> RunStatus | None:
        """The run that is at work, or was last."""
        candidates = [run for run in self.runs if run.alive] or self.runs
        return candidates[-1] if candidates else None

    @property
    def tally(self) -> Tally:
        """All attempts behind the committed rows."""
        return Tally.sum(self.records)

    @property
    def size(self) -> int:
        """Bytes in data/."""
        return sum(record.size for record in self.records)


def read_status(storage: Storage) -> Status:
    """How far the build is. BuildNotFoundError without one; CorruptBuildError when files contradict it."""
    record = require_build(storage)
    results = list(run_records.read_run_statuses(storage))
    runs = tuple(result for result in results if isinstance(result, RunStatus))
    folder = read_data_folder(storage)
    records = tuple(manifest.read_committed(storage, record, folder=folder))
    at_work = [run.record.num_rows for run in runs if run.alive]
    num_rows = max([run_records.rows_wanted([run.record for run in runs], records), *at_work])
    missing = manifest.pending(num_rows, record, records)
    written = {item.key: item.modified for item in folder.partitions}
    times = [(written.get(item.partition.key), item.rows) for item in records]
    commits = [Commit(at=at, rows=rows) for at, rows in times if at is not None]
    return Status(
        url=storage.url,
        build=record,
        runs=runs,
        records=records,
        num_rows=num_rows,
        complete=num_rows > 0 and not missing and manifest.is_marked_complete(storage),
        now=storage.now(),  # after the listing, so that no commit lies in the future
        commits=tuple(sorted(commits, key=lambda commit: commit.at)),
        problems=tuple(result for result in results if isinstance(result, str)),
    )
