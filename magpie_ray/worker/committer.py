"""From rows to files: the open partitions of a worker, and the uploads of finished ones.

Invariants: rows that somebody else has committed are taken as they are and never written twice; a sample of
rejects is there before the rows are, and the one that stays is of the attempts behind these rows.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile

from magpie_ray.counters import Tally
from magpie_ray.dataset.manifest import footer_of
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.rejects import RejectsSample, create_sample, delete_sample, replace_sample
from magpie_ray.errors import AlreadyExistsError, CorruptBuildError, StorageError
from magpie_ray.types import Finished, Outcome, Partition, PartitionRecord, Rejection
from magpie_ray.worker.events import Committed
from magpie_ray.worker.spec import WorkerSpec

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _OpenPartition:
    """A partition that is being generated.

    opened: when it was given. wanted: how many of its rows, from the first on, are generated. tallies: of
    every attempt, by row.
    """

    partition: Partition
    opened: float
    rejects: RejectsSample
    wanted: int
    rows: dict[int, Finished] = field(default_factory=dict)
    tallies: dict[int, list[Tally]] = field(default_factory=dict)

    def finished_head(self) -> list[Finished]:
        """The longest run of finished rows from the partition's start."""
        ids = takewhile(self.rows.__contains__, range(self.partition.start, self.partition.stop))
        return [self.rows[row_id] for row_id in ids]


class Committer:
    """Takes finished rows, and commits each partition once it has all of them. Called by one thread.

    uploader: runs the uploads. on_upload: called when one ends, from its thread. uploads: those under way, or
    with an event that was not taken yet. tally: of every attempt. stored: partitions that storage has taken.
    dropped_rows: finished rows of dropped partitions.
    """

    def __init__(
        self, spec: WorkerSpec, uploader: Executor, on_upload: Callable[[], None] = lambda: None
    ) -> None:
        self._spec = spec
        self._uploader, self._on_upload = uploader, on_upload
        self._open: list[_OpenPartition] = []
        self.uploads: list[Future[Committed]] = []
        self.tally = Tally()
        self.stored = self.dropped_rows = 0

    def open(self, partition: Partition) -> None:
        """Rows of the partition will come."""
        rejects = RejectsSample(self._spec.build_spec.rejects_per_reason)
        self._open.append(_OpenPartition(partition, time.monotonic(), rejects, partition.num_rows))

    def drop(self, partition: Partition) -> bool:
        """Forget the partition, whose rows somebody else has committed. False when it is not open."""
        for opened in self._open:
            if opened.partition == partition:
                log.info("%s was dropped: somebody else has committed it", partition)
                self._open.remove(opened)
                self.dropped_rows += len(opened.rows)
                return True
        return False

    def book(self, outcomes: Iterable[Outcome]) -> None:
        """Put outcomes into their partitions; upload partitions that are finished."""
        for outcome in outcomes:
            opened = self._partition_of(outcome.row_id)
            if isinstance(outcome, Rejection):
                tally = Tally.of_rejection(outcome)
                opened.rejects.note(outcome)
            else:
                opened.rows[outcome.row_id] = outcome
                tally = Tally.of_row(outcome)
            opened.tallies.setdefault(outcome.row_id, []).append(tally)
            self.tally = Tally.sum([self.tally, tally])
            self._upload_if_finished(opened)

    def narrow(self) -> list[range]:
        """Expect only the rows that precede a finished row of their partition. Returns all others."""
        others = []
        for opened in list(self._open):
            rows = opened.partition
            end = max(opened.rows, default=rows.start - 1) + 1
            others.append(range(end, rows.stop))
            opened.wanted = end - rows.start
            if opened.wanted:
                self._upload_if_finished(opened)
            else:
                self._open.remove(opened)
        return [rows for rows in others if rows]

    def commit_heads(self) -> None:
        """Close all partitions: the finished head of each is a legal file, and the rest is left to others."""
        for opened in self._open:
            if opened.finished_head():
                self._upload(opened)
        self._open.clear()

    def keep_rejects(self, outcomes: Iterable[Outcome]) -> None:
        """Store the sample of rejects alone: rejections end the worker, which may never write these rows."""
        for rejection in outcomes:
            if isinstance(rejection, Rejection):
                self._partition_of(rejection.row_id).rejects.note(rejection)
        for opened in self._open:
            rows = opened.partition
            try:
                if not self._spec.storage.exists(rows.key):  # else the sample of its rows stays
                    replace_sample(
                        self._spec.storage, rows, opened.rejects.among(range(rows.start, rows.stop))
                    )
            except StorageError as exc:  # it must not hide what ended the worker
                log.warning("what was rejected of %s could not be kept: %s", rows, exc)

    def ended_uploads(self) -> Iterator[Committed]:
        """Events of the uploads that have ended since. Raises what made one fail."""
        for upload in [upload for upload in self.uploads if upload.done()]:
            self.uploads.remove(upload)
            committed = upload.result()
            self.stored += 1
            yield committed

    @property
    def is_uploading(self) -> bool:
        """Whether an upload is under way."""
        return not all(upload.done() for upload in self.uploads)

    def last_uploads(self) -> Iterator[Committed]:
        """Events of the uploads that have succeeded."""
        for upload in self.uploads:
            if upload.exception() is None:
                yield upload.result()

    def _partition_of(self, row_id: int) -> _OpenPartition:
        for opened in self._open:
            if opened.partition.start <= row_id < opened.partition.stop:
                return opened
        raise AssertionError(f"row {row_id} belongs to no open partition")

    def _upload_if_finished(self, opened: _OpenPartition) -> None:
        if len(opened.rows) == opened.wanted:
            self._open.remove(opened)
            self._upload(opened)

    def _upload(self, opened: _OpenPartition) -> None:
        future = self._uploader.submit(self._commit, opened)
        future.add_done_callback(lambda _: self._on_upload())
        self.uploads.append(future)

    def _commit(self, opened: _OpenPartition) -> Committed:
        """Write the finished head. Where a file exists already, its footer tells where the rest begins."""
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

    def _create_or_find(self, rows: list[Finished], opened: _OpenPartition) -> PartitionRecord:
        storage, fingerprint = self._spec.storage, self._spec.fingerprint
        data, record = to_parquet(
            self._spec.build_spec.table(rows),
            compression=self._spec.build_spec.config.output.compression,
            fingerprint=fingerprint,
            run=self._spec.run,
            tally=Tally.sum(tally for row in rows for tally in opened.tallies[row.row_id]),
        )
        sample = opened.rejects.among(range(record.start, record.stop))
        is_ours = create_sample(storage, record.partition, sample)
        key = record.partition.key
        try:
            storage.create(key, data)
        except AlreadyExistsError:
            theirs = footer_of(storage, key, size=storage.size(key))
            if theirs.fingerprint != fingerprint:
                raise CorruptBuildError(f"{key} belongs to another build: move it away") from None
            log.info("%s (%s) was there already", key, theirs.partition)
            if sample and is_ours:
                self._settle_sample(partial(delete_sample, storage, record.partition, sample), record)
            return theirs
        log.info("%s (%s) committed", key, record.partition)
        if not is_ours:
            self._settle_sample(partial(replace_sample, storage, record.partition, sample), record)
        return record

    def _settle_sample(self, settle: Callable[[], None], record: PartitionRecord) -> None:
        try:
            settle()
        except StorageError as exc:  # the rows are committed all the same
            log.warning("what was rejected of %s could not be kept: %s", record.partition, exc)
