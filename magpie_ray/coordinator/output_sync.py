"""Keeps a job's ledger and its output in step, in a thread beside the job's loop.

A visit to the output finds the files of other drivers, so that their rows are not generated twice, and
removes _SUCCESS where a run that wanted fewer rows has ended. Now and then it writes a checkpoint of the
manifest, which saves the next run from reading footers.

Invariants: the loop never waits for a visit; a visit that fails is logged and costs nothing else, because the
footers are the truth.
"""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait

from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.dataset import manifest
from magpie_ray.dataset.actor_history import ActorHistoryRecord, write_actor_history
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import CorruptBuildError, MagpieError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

log = logging.getLogger(__name__)

# Visits take 1/LOOK_SHARE of the time at most: listings and checkpoints of many files are slow.
LOOK_SHARE = 200.0
# At the end of a short notice the job waits for a checkpoint.
_RETRY_SECONDS = 20.0


class OutputSync:
    """Called by the job's loop alone. history: stored with each checkpoint and at the end.

    look_seconds: between two visits at least; checkpoint_seconds: between two checkpoints. clock: seconds,
    monotonic. executor: runs the visits, one after the other.
    """

    def __init__(
        self,
        storage: Storage,
        build: BuildRecord,
        ledger: Ledger,
        *,
        num_rows: int,
        history: ActorHistory | None = None,
        look_seconds: float = 5.0,
        look_share: float = LOOK_SHARE,
        checkpoint_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._build, self._ledger, self._history, self._num_rows = build, ledger, history, num_rows
        self._look_seconds, self._look_share = look_seconds, look_share
        self._checkpoint_seconds, self._clock = checkpoint_seconds, clock
        self._executor = executor or ThreadPoolExecutor(1)
        self._visit: Future[list[PartitionRecord]] | None = None
        self._next_look = clock() + look_seconds
        self._next_checkpoint = clock() + checkpoint_seconds

    def poll(self) -> list[PartitionRecord]:
        """The files of other drivers that the last visit has found; starts the next visit when it is due.

        CorruptBuildError when the output holds a foreign file: the build could never be finished over it.
        """
        new: list[PartitionRecord] = []
        if self._visit and self._visit.done():
            try:
                new = [record for record in self._visit.result() if self._ledger.note(record)]
            except CorruptBuildError:
                raise
            except MagpieError as exc:
                log.warning("a look at the output or a checkpoint failed: %s", exc)
            self._visit = None
        now = self._clock()
        if self._visit is None and now >= self._next_look:
            checkpoint = now >= self._next_checkpoint
            if checkpoint:
                self._next_checkpoint = now + self._checkpoint_seconds
            history = self._history.record() if self._history and checkpoint else None
            records = dict(self._ledger.records)
            self._visit = self._executor.submit(self._look, records, history, checkpoint=checkpoint)
        return new

    def close(self, seconds: float, *, checkpoint: bool = True) -> None:
        """Write a last checkpoint, and wait for it so many seconds at most.

        Without `checkpoint` only the history is written: a run that is complete writes the manifest itself.
        """
        records = list(self._ledger.records.values()) if checkpoint else None
        history = self._history.record() if self._history else None
        last = self._executor.submit(self._write, records, history)
        self._executor.shutdown(wait=False)
        wait([last], timeout=seconds)
        if not last.done():
            log.warning("the last checkpoint takes too long: the next run reads more footers")
        elif error := last.exception():
            log.warning("the last checkpoint could not be written: %s", error)

    def _look(
        self, known: dict[str, PartitionRecord], history: ActorHistoryRecord | None, *, checkpoint: bool
    ) -> list[PartitionRecord]:
        began = self._clock()
        try:
            marked = manifest.is_marked_complete(self._storage)  # first: the listing then shows all its files
            new = manifest.read_new(self._storage, self._build, known)
            records = [*known.values(), *new]
            if marked and manifest.pending(self._num_rows, self._build, records):
                # By a run that wanted fewer rows, and could not know that this one is still at work.
                manifest.mark_growing(self._storage)
            self._write(records if checkpoint else None, history)
            return new
        finally:
            now = self._clock()
            self._next_look = now + max(self._look_seconds, self._look_share * (now - began))

    def _write(self, records: Iterable[PartitionRecord] | None, history: ActorHistoryRecord | None) -> None:
        if records is not None:
            manifest.write_manifest(self._storage, self._build, records, num_rows=self._num_rows)
        if history:
            write_actor_history(self._storage, history)
