"""The loop of a run: takes the events of its workers, and carries out the dispatcher's decisions.

Knows no Ray: workers are reached through the Actors protocol. Invariants: the job takes every event once;
whatever ends the loop, all actors are ended.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from magpie_ray.config.schema import Config
from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.actors import Actors, Left, Loss, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.watcher import Ended, JobEvent, Requested, Snapshot, Watcher
from magpie_ray.dataset import partitioning
from magpie_ray.errors import (
    AcceptRateError,
    ClusterLostError,
    ConfigError,
    CorruptBuildError,
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
    PreflightError,
    RowExhaustedError,
    RuleError,
    StorageError,
)
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.events import Committed, Event, Placed, Progress, Ready

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
# How long actors get to commit the finished heads of their partitions when the job is stopped.
_NOTICE_SECONDS = 20.0
_LAST_CHECKPOINT_SECONDS = 5.0
# How long idle actors get to end in order when all rows are committed.
_FAREWELL_SECONDS = 5.0
# How often the cluster is asked for new nodes and for nodes that are about to leave.
_LOOK_AROUND_SECONDS = 5.0
# How often the log names the actors that wait for a node.
_WAITING_SECONDS = 30.0
# Errors that another try on another actor would only repeat.
_FATAL_ERRORS = (RowExhaustedError, AcceptRateError, RuleError, ConfigError, CorruptBuildError)


class Job:
    """The event loop. history: a watcher; `work` takes more of them. clock: seconds, monotonic."""

    def __init__(
        self,
        *,
        config: Config,
        storage: Storage,
        ledger: Ledger,
        output: OutputSync,
        dispatcher: Dispatcher,
        actors: Actors,
        history: ActorHistory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        now = clock()
        self._config = config
        self._storage = storage
        self._ledger = ledger
        self._output = output
        self._dispatcher = dispatcher
        self._actors = actors
        self._watchers: list[Watcher] = [history] if history else []
        self._fleet = Fleet(
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            now=now,
        )
        self._engine_starts = self._retried_partitions = 0
        self._looked_around = self._logged_waiting = now
        self._ended: float | None = None

    def work(self, watchers: Sequence[Watcher], stop_requested: Callable[[], bool]) -> None:
        """Run workers until every partition is committed.

        InterruptedJobError when the job is stopped; GenerationFailedError when it gives up; ClusterLostError;
        an error of a worker that another try would only repeat.
        """
        self._watchers += watchers
        try:
            for slot in range(self._dispatcher.num_slots):
                self._start(slot)
            try:
                done = self._loop(stop_requested)
            except ClusterLostError:
                raise
            except MagpieError:
                self._see_off(self._actors.stop, _NOTICE_SECONDS)
                raise
            if not done:
                self._see_off(self._actors.stop, _NOTICE_SECONDS)
                raise InterruptedJobError(
                    f"stopped with {self._ledger.rows:,} of {self._config.num_rows:,} rows committed in "
                    f"{self._storage.url}; run the same command again to resume"
                )
            self._ended = self._clock()
            self._see_off(self._actors.finish, _FAREWELL_SECONDS)
        finally:
            for slot in range(len(self._fleet)):
                self._actors.end(slot)
                self._tell(slot, Ended())
            self._output.close(_LAST_CHECKPOINT_SECONDS, checkpoint=self._ended is None)

    def _loop(self, stop_requested: Callable[[], bool]) -> bool:
        """Take events until all partitions are committed; False when the job is stopped before that."""
        while not self._dispatcher.done:
            if stop_requested():
                return False
            for slot, event in self._actors.poll(_POLL_SECONDS):
                self._take(slot, event)
            files = [record.partition for record in self._output.poll()]
            for slot, partition in self._dispatcher.found(files):
                self._actors.drop(slot, partition)
            self._replace_overdue()
            self._look_around()
            self._show()
        return True

    def snapshot(self) -> Snapshot:
        """The state of the job now."""
        fleet, ledger = self._fleet, self._ledger
        rows = min(ledger.rows + fleet.unwritten_rows, self._config.num_rows)
        ended = self._ended or self._clock()
        return Snapshot(
            num_rows=self._config.num_rows,
            rows=rows,
            rows_this_run=rows - ledger.rows_before,
            committed_rows=ledger.rows,
            generated=fleet.tally,
            committed=ledger.written,
            engines=fleet.engines,
            actors_up=fleet.num("up"),
            actors_starting=fleet.num("starting"),
            actors_wanted=fleet.num_wanted,
            lost=fleet.lost,
            lost_rows=fleet.lost_rows,
            retried_partitions=self._retried_partitions,
            storage_retries=fleet.storage_retries,
            seconds=ended - fleet.first_ready if fleet.first_ready else 0.0,
        )

    def _tell(self, slot: int, event: JobEvent) -> None:
        for watcher in self._watchers:
            watcher.hear(slot, event)

    def _show(self) -> None:
        snapshot = self.snapshot()
        for watcher in self._watchers:
            watcher.show(snapshot)

    def _start(self, slot: int) -> None:
        self._fleet.request(slot, self._clock())
        self._tell(slot, Requested())
        self._actors.start(slot, engine_start=self._engine_starts)
        self._engine_starts += 1

    def _take(self, slot: int, event: Event | Lost | Left) -> None:
        now = self._clock()
        match event:
            case Placed():
                self._fleet.place(slot, now)
                self._tell(slot, event)
                log.info("the actor of slot %d starts on %s, process %d", slot, event.host, event.pid)
            case Ready():
                self._fleet.get_ready(slot, now)
                self._tell(slot, event)
                log.info("the engine of slot %d is up after %.0f s: %s", slot, event.seconds, event.figures)
            case Progress():
                has_work = event.doing != "nothing" or self._dispatcher.open_rows(slot) > 0
                self._fleet.progress(slot, event, has_work=has_work, now=now)
                self._tell(slot, event)
                self._give(slot, event, now)
            case Committed():
                self._commit(slot, event)
                files = [record.partition for record in event.files]
                for holder in self._dispatcher.committed(slot, event.partition, files):
                    self._actors.drop(holder, event.partition)
            case Lost() | Left():
                self._lose(slot, event)

    def _give(self, slot: int, event: Progress, now: float) -> None:
        if self._fleet[slot].leaving:
            return
        for partition in self._dispatcher.progress(
            slot, started=event.started, finished=event.tally.rows, live_window=event.live_window, now=now
        ):
            self._actors.give(slot, partition)

    def _commit(self, slot: int, event: Committed) -> None:
        self._fleet.commit(slot, sum(record.rows for record in event.files))
        new = tuple(record for record in event.files if self._ledger.note(record))
        self._tell(slot, replace(event, files=new))

    def _lose(self, slot: int, event: Lost | Left) -> None:
        """The slot's actor is gone. Raises its error if another try would only repeat that."""
        self._actors.end(slot)
        if isinstance(event.error, _FATAL_ERRORS):  # the error alone is reported; nothing is generated again
            self._fleet.lose(slot, rows_to_redo=0, now=self._clock())
            self._tell(slot, replace(event, cause=str(event.error)))
            raise event.error
        redone = self._dispatcher.to_redo(slot)
        self._retried_partitions += len(redone)
        rows_to_redo = partitioning.rows_in(redone)
        lost_rows = self._fleet.lose(slot, rows_to_redo=rows_to_redo, now=self._clock())
        self._tell(slot, event)
        if event.loss is Loss.LEFT:
            log.warning("the actor of slot %d left: %s", slot, event.cause)
        else:
            log.warning("lost the actor of slot %d: %s", slot, event.cause)
        if rows_to_redo:
            log.warning(
                "%d rows of slot %d's partitions are generated again, %d or more of them were finished",
                rows_to_redo,
                slot,
                lost_rows,
            )
        if isinstance(event.error, StorageError):
            self._check_output(event.error)
        if self._dispatcher.lost(slot, cause=event.cause, loss=event.loss):
            log.info("the actor of slot %d is replaced", slot)
            self._start(slot)

    def _check_output(self, error: StorageError) -> None:
        """An actor gave up on the output. GenerationFailedError if the driver can't use it either."""
        try:
            self._storage.probe()
        except PreflightError as exc:
            raise GenerationFailedError(
                f"the output can't be used any more. An actor reported: {error} Then the driver: {exc} "
                "Committed rows are kept: once the cause is mended, run the same command again to resume"
            ) from exc

    def _replace_overdue(self) -> None:
        """Give up workers whose engine hangs or does not come up; give up the job when none gets a node."""
        now = self._clock()
        for slot, cause in self._fleet.overdue(now):
            self._take(slot, Lost(cause=self._actors.explain(slot, cause), loss=Loss.FAILED))
        if self._fleet.none_placed(now):
            raise GenerationFailedError(
                f"no actor could be placed for {self._config.cluster.start_timeout_seconds:g} s "
                f"(cluster.start_timeout_seconds): {self._actors.describe()}"
            )

    def _look_around(self) -> None:
        """Use new nodes, leave nodes before they go, and log which actors still wait for one."""
        now = self._clock()
        if now - self._looked_around < _LOOK_AROUND_SECONDS:
            return
        self._looked_around = now
        for slot in self._actors.on_notice():
            if not self._fleet[slot].leaving:
                log.warning("the node of slot %d is about to leave: its finished rows are committed", slot)
                self._fleet.leave(slot)
                self._actors.stop(slot)
        wanted = min(self._actors.capacity(), self._dispatcher.num_left)
        while self._dispatcher.num_slots < wanted:
            slot = self._dispatcher.add_slot()
            log.info("the cluster has room for another actor: slot %d", slot)
            self._start(slot)
        waiting = self._fleet.num("waiting")
        if waiting and now - self._logged_waiting >= _WAITING_SECONDS:
            self._logged_waiting = now
            log.info("%d of %d actors wait: %s", waiting, self._fleet.num_wanted, self._actors.describe())

    def _see_off(self, order: Callable[[int], None], seconds: float) -> None:
        """Give the workers that are up a last order; take events until all have ended, or for so long."""
        for slot in self._fleet.ready:
            order(slot)
        staying, deadline = set(self._fleet.ready), self._clock() + seconds
        while staying and (left := deadline - self._clock()) > 0:
            for slot, event in self._actors.poll(min(left, _POLL_SECONDS)):
                match event:
                    case Progress():
                        self._fleet.progress(slot, event, has_work=False, now=self._clock())
                    case Committed():
                        self._commit(slot, event)
                    case Lost() | Left():
                        self._actors.end(slot)
                        self._tell(slot, Ended())
                        staying.discard(slot)
            self._show()
