"""Keeps a job's ledger and its output in step, in a thread beside the job's loop.

A visit to the output finds the files of other drivers, so that their rows are not generated twice, and
removes _SUCCESS where a run that wanted fewer rows has ended. Where somebody has removed the records that the
run rests on, the visit writes them again; it warns of committed files that are gone. Now and then it writes a
checkpoint of the manifest, which saves the next run from reading footers.

Invariants: the loop never waits for a visit; a visit that fails is logged and costs nothing else, because the
footers are the truth.
"""

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import Executor, Future, wait

from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.completeness import found_by_key
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.dataset import manifest
from magpie_ray.dataset.actor_history import ActorHistoryRecord, write_actor_history
from magpie_ray.dataset.build_record import BuildRecord, restore_build
from magpie_ray.dataset.data_folder import read_data_folder, stray_warning
from magpie_ray.dataset.layout import BUILD_KEY, INPUT_BLOCKS_KEY
from magpie_ray.dataset.run_records import RunRecord, restore_run
from magpie_ray.errors import BuildReplacedError, CorruptBuildError, MagpieError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.utils.background import DaemonExecutor

log = logging.getLogger(__name__)

# Visits take 1/LOOK_SHARE of the time at most: listings and checkpoints of many files are slow.
LOOK_SHARE = 200.0
# The next visit after one that failed comes after so many usual pauses; after others within an hour.
_FAILED_LOOKS, _LONGEST_SECONDS = 6, 3600.0
# At the end of a short notice the job waits for a checkpoint.
_RETRY_SECONDS = 20.0
# A visit looks for so many files that are gone.
_SHOWN_LOST = 20


class OutputSync:
    """Called by the job's loop alone. history: stored with each checkpoint and at the end.

    run: the job's, whose record is kept in place. copy_inputs: copies the inputs into the build; None where
    it has none. look_seconds: between two visits at least;
    checkpoint_seconds: between two checkpoints. clock: seconds, monotonic. executor: runs the visits, one
    after the other.
    """

    def __init__(
        self,
        storage: Storage,
        build: BuildRecord,
        ledger: Ledger,
        *,
        num_rows: int,
        run: RunRecord | None = None,
        history: ActorHistory | None = None,
        copy_inputs: Callable[[], object] | None = None,
        look_seconds: float = 5.0,
        look_share: float = LOOK_SHARE,
        checkpoint_seconds: float = 60.0,
        clock: Callable[[], float] = awake_seconds,
        executor: Executor | None = None,
    ) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._build, self._ledger, self._history, self._num_rows = build, ledger, history, num_rows
        self._run, self._copy_inputs = run, copy_inputs
        self._warned = set[str]()
        self._checkpoints = manifest.Checkpoints(self._storage, build, num_rows=num_rows)
        self._look_seconds, self._look_share = look_seconds, look_share
        self._checkpoint_seconds, self._clock = checkpoint_seconds, clock
        self._executor = executor or DaemonExecutor(name="output-sync")
        self._visit: Future[list[PartitionRecord]] | None = None
        self._closing = False
        self._next_look = clock() + look_seconds
        self._next_checkpoint = clock() + checkpoint_seconds

    def poll(self) -> list[PartitionRecord]:
        """The files of other drivers that the last visit has found; starts the next visit when it is due.

        CorruptBuildError when a partition is of another build: the build could never be finished over it.
        BuildReplacedError when another build has begun at the output.
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

        A visit under way writes nothing more. Without `checkpoint` only the history is written: a run that is
        complete writes the manifest itself.
        """
        self._closing = True
        records = list(self._ledger.records.values()) if checkpoint else None
        history = self._history.record() if self._history else None
        last = self._executor.submit(self._write_last, records, history)
        self._executor.shutdown(wait=False)
        wait([last], timeout=seconds)
        if not last.done():
            log.warning("the last checkpoint takes too long: the next run reads more footers")
        elif error := last.exception():
            log.warning("the last checkpoint could not be written: %s", error)

    def _look(
        self, known: dict[str, PartitionRecord], history: ActorHistoryRecord | None, *, checkpoint: bool
    ) -> list[PartitionRecord]:
        began, succeeded = self._clock(), False
        try:
            self._restore_records()
            marked = manifest.is_marked_complete(self._storage)  # first: the listing then shows all its files
            folder = read_data_folder(self._storage)
            new = manifest.read_new(self._storage, self._build, known, folder=folder)
            if strays := self._ledger.new_strays(folder.strays):
                log.warning("%s", stray_warning(self._storage, strays))
            self._warn_of_lost({item.key for item in folder.partitions}, known)
            succeeded = True
            if self._closing:  # the end of the run writes, and knows more
                return new
            records = [*known.values(), *new]
            if marked and manifest.pending(self._num_rows, self._build, records):
                # By a run that wanted fewer rows, and could not know that this one is still at work.
                manifest.mark_growing(self._storage)
            self._write(records if checkpoint else None, history)
            return new
        finally:
            now = self._clock()
            # What a visit that fails took says nothing of the time that visits take.
            wait_seconds = (
                self._look_share * (now - began) if succeeded else _FAILED_LOOKS * self._look_seconds
            )
            self._next_look = now + min(max(self._look_seconds, wait_seconds), _LONGEST_SECONDS)

    def _write_last(
        self, records: Iterable[PartitionRecord] | None, history: ActorHistoryRecord | None
    ) -> None:
        self._restore_records()
        self._write(records, history)

    def _restore_records(self) -> None:
        """Where somebody has removed them. A damaged build.json is for the end of the run to refuse."""
        try:
            restore_build(self._storage, self._build)
        except BuildReplacedError:
            raise
        except CorruptBuildError as exc:
            self._warn_once(BUILD_KEY, str(exc))
        if self._run:
            restore_run(self._storage, self._run)
        if self._copy_inputs and not self._storage.exists(INPUT_BLOCKS_KEY):
            log.warning(
                "%s was removed: the inputs are copied again", self._storage.display(INPUT_BLOCKS_KEY)
            )
            self._copy_inputs()

    def _warn_of_lost(self, listed: Container[str], known: Mapping[str, PartitionRecord]) -> None:
        """Warn of files that are neither listed nor found by their keys."""
        unlisted = [known[key] for key in known if key not in listed and key not in self._warned]
        unlisted = unlisted[:_SHOWN_LOST]
        found = found_by_key(self._storage, unlisted)
        for key in [record.partition.key for record in unlisted if record not in found]:
            self._warn_once(
                key,
                f"{self._storage.display(key)} was committed and is gone: its rows are generated when the "
                "same command is run again after this run",
            )

    def _warn_once(self, key: str, warning: str) -> None:
        if key not in self._warned:
            log.warning("%s", warning)
        self._warned.add(key)

    def _write(self, records: Iterable[PartitionRecord] | None, history: ActorHistoryRecord | None) -> None:
        if records is not None:
            self._checkpoints.write(records)
        if history:
            write_actor_history(self._storage, history)
