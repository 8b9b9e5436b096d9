"""What a run knows to be committed, kept in step with storage by a thread beside the loop.

The thread looks for files of other drivers, so that their work is not done twice, takes _SUCCESS away where
one of them has ended with fewer rows, and writes checkpoints of the manifest, which save the next run from
reading footers. What always holds: the loop never waits for it; its failures are told and cost nothing else,
since the footers are the truth.
"""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from magpie_ray.counters import Tally
from magpie_ray.dataset import manifest
from magpie_ray.dataset.actor_history import ActorHistory, ActorHistoryRecord, write_actor_history
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import CorruptBuildError, MagpieError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
# Listings and checkpoints of many files take their time: of the driver they take a half percent at most.
_LOOK_SECONDS, LOOK_SHARE = 5.0, 200
# Whoever waits for a checkpoint does so at the end of a notice.
_RETRY_SECONDS = 20.0


class Ledger:
    """The partitions of a build by key. One thread calls all methods. `records`: those committed so far.

    `run`: the number of this one; `written`: what is behind the files that it has written since.
    `lives`: of the run's actors; written with each checkpoint, and at the end.
    """

    def __init__(
        self,
        storage: Storage,
        build: BuildRecord,
        records: Sequence[PartitionRecord],
        *,
        num_rows: int,
        run: int = 0,
        lives: ActorHistory | None = None,
    ) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._build = build
        self._num_rows = num_rows
        self._run = run
        self.written = Tally()
        self._lives = lives
        self._records = {record.partition.key: record for record in records}
        self.rows_before = self.rows = sum(record.rows for record in records)
        self._thread = ThreadPoolExecutor(1)
        self._visit: Future[list[PartitionRecord]] | None = None
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._next_checkpoint = time.monotonic() + CHECKPOINT_SECONDS

    def note(self, record: PartitionRecord) -> bool:
        """A file is committed. False when that was known."""
        key = record.partition.key
        if key in self._records:
            return False
        self._records[key] = record
        self.rows += record.rows
        if record.run == self._run:
            self.written = Tally.sum([self.written, Tally.of_record(record)])
        return True

    def tend(self) -> list[PartitionRecord]:
        """Send the thread on its way when it is time; returns the files of others that it has found since.

        CorruptBuildError when there is one that does not belong: the build could never be finished over it.
        """
        found: list[PartitionRecord] = []
        if self._visit and self._visit.done():
            try:
                found = [record for record in self._visit.result() if self.note(record)]
            except CorruptBuildError:
                raise
            except MagpieError as exc:
                log.warning("a look at the output or a checkpoint failed: %s", exc)
            self._visit = None
        now = time.monotonic()
        if self._visit is None and now >= self._next_look:
            checkpoint = now >= self._next_checkpoint
            if checkpoint:
                self._next_checkpoint = now + CHECKPOINT_SECONDS
            lives = self._lives.record() if self._lives and checkpoint else None
            self._visit = self._thread.submit(self._look, dict(self._records), lives, checkpoint=checkpoint)
        return found

    def close(self, seconds: float, *, checkpoint: bool = True) -> None:
        """Writes a last checkpoint, if it takes no longer than that.

        Without `checkpoint` where the run is done and writes its last words itself.
        """
        records = list(self._records.values()) if checkpoint else None
        last = self._thread.submit(self._leave, records, self._lives.record() if self._lives else None)
        self._thread.shutdown(wait=False)
        wait([last], timeout=seconds)
        if not last.done():
            log.warning("the last checkpoint takes too long: the next run reads more footers")
        elif error := last.exception():
            log.warning("the last checkpoint could not be written: %s", error)

    def _look(
        self, known: dict[str, PartitionRecord], lives: ActorHistoryRecord | None, *, checkpoint: bool
    ) -> list[PartitionRecord]:
        started = time.monotonic()
        try:
            marked = manifest.is_marked_complete(self._storage)  # before the listing, which then has it all
            found = manifest.read_new(self._storage, self._build, known)
            records = [*known.values(), *found]
            if marked and manifest.pending(self._num_rows, self._build, records):
                # By a run that was asked for fewer rows, and could not know that this one is still at work.
                manifest.mark_growing(self._storage)
            if checkpoint:
                self._write(records)
            if lives:
                write_actor_history(self._storage, lives)
            return found
        finally:
            now = time.monotonic()
            self._next_look = now + max(_LOOK_SECONDS, LOOK_SHARE * (now - started))

    def _leave(self, records: Sequence[PartitionRecord] | None, lives: ActorHistoryRecord | None) -> None:
        if records is not None:
            self._write(records)
        if lives:
            write_actor_history(self._storage, lives)

    def _write(self, records: Sequence[PartitionRecord]) -> None:
        manifest.write_manifest(self._storage, self._build, records, num_rows=self._num_rows)
