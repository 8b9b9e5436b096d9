"""One run of a build: the loop between the workers' events and the dispatcher's decisions.

Knows no Ray: workers are reached through the Actors protocol. What always holds: every event is taken once;
whatever ends the loop, all actors are ended.
"""

import logging
import time
from collections.abc import Callable

from magpie_ray.config.schema import Config
from magpie_ray.coordinator.actors import Actors, Left, Loss, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.snapshot import Snapshot, Watcher, Watchers
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.actor_history import ActorHistory
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
# How long actors get to commit the heads of their partitions when the job is told to stop.
_NOTICE_SECONDS = 20.0
# How long a last checkpoint may take.
_CHECKPOINT_SECONDS = 5.0
# How long idle actors get to end in order when all is done.
_FAREWELL_SECONDS = 5.0
# How often the cluster is asked for new nodes and for nodes that are about to leave.
_LOOK_AROUND_SECONDS = 5.0
# How often the log says what is waited for.
_WAITING_SECONDS = 30.0
# What another try on another actor would not change.
FATAL_ERRORS: tuple[type[MagpieError], ...] = (
    RowExhaustedError,
    AcceptRateError,
    RuleError,
    ConfigError,
    CorruptBuildError,
)


class Job:
    """The event loop. `clock`: seconds, monotonic; None is this machine's. `lives`: told what happens."""

    def __init__(
        self,
        *,
        config: Config,
        storage: Storage,
        ledger: Ledger,
        dispatcher: Dispatcher,
        actors: Actors,
        lives: ActorHistory | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock or time.monotonic
        now = self._clock()
        self._config = config
        self._storage = storage
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._actors = actors
        self.lives = lives or ActorHistory(clock=self._clock)
        self._fleet = Fleet(
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            now=now,
        )
        self._watcher: Watcher = Watchers([])
        self._engine_starts = self._retried_partitions = 0
        self._looked_around = self._told_waiting = now
        self._ended: float | None = None

    def work(self, watcher: Watcher, stop_requested: Callable[[], bool]) -> None:
        """Run workers until every partition is committed.

        InterruptedJobError when told to stop; GenerationFailedError when it gives up; ClusterLostError; what
        a worker raised when another try would not change it. `watcher` is shown how it goes.
        """
        self._watcher = watcher
        try:
            for slot in range(self._dispatcher.num_slots):
                self._start(slot)
            try:
                done = self._loop(stop_requested)
            except ClusterLostError:
                raise
            except MagpieError:
                self._take_leave()
                raise
            if not done:
                self._take_leave()
                raise InterruptedJobError(
                    f"stopped with {self._ledger.rows:,} of {self._config.num_rows:,} rows committed in "
                    f"{self._storage.url}; run the same command again to go on"
                )
            self._ended = self._clock()
            for slot in self._fleet.ready:
                self._actors.finish(slot)
            self._see_off(_FAREWELL_SECONDS)
        finally:
            for slot in range(len(self._fleet)):
                self._actors.end(slot)
            self.lives.end_all()
            self._ledger.close(_CHECKPOINT_SECONDS, checkpoint=self._ended is None)

    def _loop(self, stop_requested: Callable[[], bool]) -> bool:
        """Take events until all is committed; False when told to stop before that."""
        while not self._dispatcher.done:
            if stop_requested():
                return False
            for slot, event in self._actors.poll(_POLL_SECONDS):
                self._take(slot, event)
            found = [record.partition for record in self._ledger.tend()]
            for slot, partition in self._dispatcher.found(found):
                self._actors.drop(slot, partition)
            self._check_times()
            self._look_around()
            self._watcher.show(self.snapshot())
        return True

    def snapshot(self) -> Snapshot:
        """Where the job stands."""
        fleet = self._fleet
        rows = min(self._ledger.rows + fleet.unwritten_rows, self._config.num_rows)
        ended = self._ended or self._clock()
        return Snapshot(
            num_rows=self._config.num_rows,
            rows=rows,
            rows_this_run=rows - self._ledger.rows_before,
            committed_rows=self._ledger.rows,
            generated=fleet.tally,
            committed=self._ledger.written,
            engines=fleet.engines,
            actors_up=fleet.num_ready,
            actors_starting=fleet.num_starting,
            actors_wanted=fleet.num_wanted,
            lost=fleet.lost,
            lost_rows=fleet.lost_rows,
            retried_partitions=self._retried_partitions,
            storage_retries=fleet.storage_retries,
            seconds=ended - fleet.first_ready if fleet.first_ready else 0.0,
        )

    @property
    def engine_use(self) -> EngineStats:
        """How well all engines of the run have been used so far."""
        return self._fleet.engines

    def _start(self, slot: int) -> None:
        self._fleet.ask_for(slot, self._clock())
        self.lives.ask(slot)
        self._actors.start(slot, engine_start=self._engine_starts)
        self._engine_starts += 1

    def _take(self, slot: int, event: Event | Lost | Left) -> None:
        now = self._clock()
        match event:
            case Placed():
                self._fleet.place(slot, now)
                self.lives.place(slot, event.host)
                log.info("the actor of slot %d starts on %s, process %d", slot, event.host, event.pid)
            case Ready():
                self._fleet.get_ready(slot, now)
                self.lives.get_ready(slot)
                log.info("engine %d is up after %.0f s: %s", slot, event.seconds, event.figures)
            case Progress():
                has_work = event.doing != "nothing" or self._dispatcher.open_rows(slot) > 0
                self._fleet.progress(slot, event, has_work=has_work, now=now)
                self._give(slot, event, now)
            case Committed():
                self._note_commit(slot, event)
                files = [record.partition for record in event.files]
                for holder in self._dispatcher.committed(slot, event.partition, files):
                    self._actors.drop(holder, event.partition)
            case Lost():
                self._lose(slot, cause=event.cause, loss=event.loss, error=event.error)
            case Left():
                self._lose(slot, cause="it left on notice (SIGTERM, or its node's)", loss=Loss.LEFT)

    def _give(self, slot: int, event: Progress, now: float) -> None:
        if self._fleet[slot].leaving:
            return
        for partition in self._dispatcher.progress(
            slot, started=event.started, finished=event.tally.rows, live_window=event.live_window, now=now
        ):
            self._actors.give(slot, partition)

    def _note_commit(self, slot: int, event: Committed) -> None:
        self._fleet.commit(slot, sum(record.rows for record in event.files))
        new = [record for record in event.files if self._ledger.note(record)]
        self.lives.commit(slot, sum(record.rows for record in new))
        self._watcher.committed(slot, event)

    def _check_output(self, error: StorageError) -> None:
        """An actor has given up on the output. GenerationFailedError unless it is that actor's trouble."""
        try:
            self._storage.probe()
        except PreflightError as exc:
            raise GenerationFailedError(
                f"the output can't be used any more. An actor said: {error} Then the driver: {exc} What is "
                "committed is kept: once the cause is mended, the same command goes on"
            ) from exc

    def _lose(self, slot: int, *, cause: str, loss: Loss, error: MagpieError | None = None) -> None:
        """The worker is gone, or as good as gone. Raises what ends the job, `error` itself perhaps."""
        if isinstance(error, FATAL_ERRORS):  # it says all, once, and nothing is generated again
            self._fleet.lose(slot, rows_to_redo=0, now=self._clock())
            self._actors.end(slot)
            self.lives.end(slot, "lost", str(error))
            raise error
        redone = self._dispatcher.to_redo(slot)
        self._retried_partitions += len(redone)
        again = partitioning.rows_in(redone)
        rows = self._fleet.lose(slot, rows_to_redo=again, now=self._clock())
        self._actors.end(slot)
        log.warning("lost the actor of slot %d: %s", slot, cause)
        if again:
            log.warning(
                "%d rows of slot %d's partitions are generated again, %d or more of them were finished",
                again,
                slot,
                rows,
            )
        self.lives.end(slot, "left" if loss is Loss.LEFT else "lost", cause)
        if isinstance(error, StorageError):
            self._check_output(error)
        if self._dispatcher.lost(slot, cause=cause, loss=loss):
            self._start(slot)

    def _check_times(self) -> None:
        """Replace workers whose engine stands still or does not come up; give up when none can be placed."""
        now = self._clock()
        for slot, cause in self._fleet.overdue(now):
            self._lose(slot, cause=self._actors.explain(slot, cause), loss=Loss.FAILED)
        if self._fleet.none_placed(now):
            raise GenerationFailedError(
                f"no actor could be placed for {self._config.cluster.start_timeout_seconds:g} s "
                f"(cluster.start_timeout_seconds): {self._actors.describe()}"
            )

    def _look_around(self) -> None:
        """Use nodes that have come, leave nodes in time that are about to go, say what is waited for."""
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
        waiting = self._fleet.num_waiting
        if waiting and now - self._told_waiting >= _WAITING_SECONDS:
            self._told_waiting = now
            log.info("%d of %d actors wait: %s", waiting, self._fleet.num_wanted, self._actors.describe())

    def _take_leave(self) -> None:
        """Let the workers commit what they have finished."""
        for slot in self._fleet.ready:
            self._actors.stop(slot)
        self._see_off(_NOTICE_SECONDS)

    def _see_off(self, seconds: float) -> None:
        """Take the last events of the workers that are up, until all have left or the time is over."""
        deadline = self._clock() + seconds
        staying = set(self._fleet.ready)
        while staying and (left := deadline - self._clock()) > 0:
            for slot, event in self._actors.poll(min(left, _POLL_SECONDS)):
                match event:
                    case Progress():
                        self._fleet.tell(slot, event)
                    case Committed():
                        self._note_commit(slot, event)
                    case Lost() | Left():
                        self._actors.end(slot)
                        self.lives.end(slot, "ended")
                        staying.discard(slot)
            self._watcher.show(self.snapshot())
