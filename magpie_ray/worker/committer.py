"""From the rows of a partition to its files: Parquet, the sample of rejects, exclusive creation.

What always holds: rows that somebody else has committed are taken as they are, and never written twice.
"""

import logging
import time
from dataclasses import dataclass, field

from magpie_ray.counters import Tally
from magpie_ray.dataset.manifest import footer_of
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.rejects import RejectsSample, write_rejects
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, StorageError
from magpie_ray.types import Partition, PartitionRecord, Row
from magpie_ray.worker.events import Committed
from magpie_ray.worker.spec import WorkerSpec

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class OpenPartition:
    """A partition that is being generated. opened: when it was given. tallies: of every attempt, by row."""

    partition: Partition
    opened: float
    rejects: RejectsSample
    rows: dict[int, Row] = field(default_factory=dict)
    tallies: dict[int, list[Tally]] = field(default_factory=dict)

    def finished_head(self) -> list[Row]:
        """The longest run of finished rows from the partition's start."""
        head = []
        for row_id in range(self.partition.start, self.partition.stop):
            if row_id not in self.rows:
                break
            head.append(self.rows[row_id])
        return head


class Committer:
    """Writes what a worker has finished. May be called from several threads at once."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec

    def commit(self, opened: OpenPartition) -> Committed:
        """Write the finished head. On "exists" the winner's footer says where to write the rest, if any."""
        started = time.monotonic()
        rows = opened.finished_head()
        files: list[PartitionRecord] = []
        while rows:
            files.append(self._create_or_find(rows, opened))
            rows = [row for row in rows if row.row_id >= files[-1].stop]
        now = time.monotonic()
        return Committed(
            partition=opened.partition,
            files=tuple(files),
            seconds=now - opened.opened,
            upload_seconds=now - started,
        )

    def _create_or_find(self, rows: list[Row], opened: OpenPartition) -> PartitionRecord:
        spec = self._spec
        data, record = to_parquet(
            rows,
            config=spec.build_spec.config,
            fingerprint=spec.fingerprint,
            run=spec.run,
            tally=Tally.sum(tally for row in rows for tally in opened.tallies[row.row_id]),
        )
        written = record.partition
        write_rejects(spec.storage, written, opened.rejects.among(range(written.start, written.stop)))
        key = record.partition.key
        try:
            spec.storage.create(key, data)
        except AlreadyExistsError:
            found = footer_of(spec.storage, key, size=spec.storage.size(key))
            if found.fingerprint != spec.fingerprint:
                raise CorruptBuildError(f"{key} belongs to another build: move it away") from None
            log.info("%s (%s) was there already", key, found.partition)
            return found
        log.info("%s (%s) committed", key, record.partition)
        return record

    def keep_rejects(self, opened: OpenPartition) -> None:
        """Write the sample of a partition's rejects alone, where no row of it may ever be written."""
        whole = opened.partition
        kept = opened.rejects.among(range(whole.start, whole.stop))
        try:
            write_rejects(self._spec.storage, whole, kept)
        except StorageError as exc:  # it must not hide what ended the worker
            log.warning("what was rejected of %s could not be kept: %s", whole, exc)
