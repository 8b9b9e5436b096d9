"""The loop of a run: takes the events of its workers, and carries out the dispatcher's decisions.

Knows no Ray: workers are reached through the Actors protocol. Invariants: the job takes every event once;
whatever ends the loop, all actors are ended.
"""

import logging
import random
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from dataclasses import replace

from magpie_ray.config.loading import JobConfig, job_of
from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.actors import Actors, Left, Loss, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.losses import Losses
from magpie_ray.coordinator.notice import CHECKPOINT_SHARE, HEARD_SHARE, Notice
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.output_trial import OutputTrial
from magpie_ray.coordinator.staffing import Pauses, Staffing
from magpie_ray.coordinator.starter import Starter
from magpie_ray.coordinator.watcher import Ended, JobEvent, Requested, Snapshot, Watcher
from magpie_ray.errors import (
    BuildReplacedError,
    ClusterLostError,
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
)
from magpie_ray.storage.storage import Storage
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.worker.events import Committed, Event, Placed, Progress, Ready

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_LAST_CHECKPOINT_SECONDS = 5.0
# A checkpoint that is under way when all is done must not end up over the manifest of the complete build.
_LAST_VISIT_SECONDS = 60.0
# How long idle actors get to end in order when all rows are committed.
_FAREWELL_SECONDS = 5.0
# How often the cluster is asked for new nodes and for nodes that are about to leave.
_LOOK_AROUND_SECONDS = 5.0


class Job:
    """The event loop. history: a watcher; `work` takes more of them.

    clock: seconds that this process was awake, so that a driver that slept gives no worker up for it.
    notice: the time for the end of the run when it is stopped. pauses: before actors are started; draw: their
    jitter.
    """

    def __init__(
        self,
        *,
        config: JobConfig,
        storage: Storage,
        ledger: Ledger,
        output: OutputSync,
        dispatcher: Dispatcher,
        actors: Actors,
        history: ActorHistory | None = None,
        notice: Notice | None = None,
        clock: Callable[[], float] = awake_seconds,
        pauses: Pauses | None = None,
        draw: random.Random | None = None,
    ) -> None:
        self._clock = clock
        now = clock()
        self._config = config
        self._storage = storage
        self._notice = notice or Notice(config.cluster.notice_seconds, storage, clock=clock)
        self._stop_requested: Callable[[], bool] = lambda: False
        self._ledger = ledger
        self._output = output
        self._dispatcher = dispatcher
        self._actors = actors
        self._watchers: list[Watcher] = [history] if history else []
        self._fleet = Fleet(
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            own_rules=config.own_rules,
        )
        self._staffing = Staffing(
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            now=now,
            draw=draw or random.Random(),
            pauses=pauses,
        )
        self._starter = Starter(
            dispatcher=dispatcher,
            actors=actors,
            fleet=self._fleet,
            staffing=self._staffing,
            on_request=lambda slot: self._tell(slot, Requested()),
            clock=clock,
        )
        self._losses = Losses(
            dispatcher=dispatcher,
            actors=actors,
            fleet=self._fleet,
            staffing=self._staffing,
            output_trial=OutputTrial(storage, clock=clock),
            tell=self._tell,
        )
        self._looked_around = now
        self._ended: float | None = None

    def work(self, watchers: Sequence[Watcher], stop_requested: Callable[[], bool]) -> None:
        """Run workers until every partition is committed.

        InterruptedJobError when the job is stopped; GenerationFailedError when it gives up; ClusterLostError;
        an error of a worker that another try would only repeat.
        """
        self._watchers += watchers
        self._stop_requested = stop_requested
        is_over = False
        try:
            self._starter.add(range(self._dispatcher.num_slots))
            try:
                done = self._loop()
            except (ClusterLostError, BuildReplacedError):
                raise
            except MagpieError:
                self._see_off(self._actors.stop, self._notice.left(HEARD_SHARE))
                raise
            if not done:
                self._notice.begin()
                seconds = self._notice.left(HEARD_SHARE)
                told = "stopping: %d finished rows are not committed yet; they are within %.0f s, if possible"
                log.info(told, self._fleet.unwritten_rows, seconds)
                self._see_off(self._actors.stop, seconds)
                raise InterruptedJobError(self._how_stopped())
            self._ended = self._clock()
            self._see_off(self._actors.finish, _FAREWELL_SECONDS)
            is_over = True
        finally:
            for slot in range(len(self._fleet)):
                self._actors.end(slot)
                self._tell(slot, Ended())
            most = _LAST_VISIT_SECONDS if is_over else _LAST_CHECKPOINT_SECONDS
            self._output.close(self._notice.left(CHECKPOINT_SHARE, most=most), checkpoint=not is_over)

    def _how_stopped(self) -> str:
        """What the run leaves when it is stopped."""
        rows, again = self._ledger.rows, self._fleet.unwritten_rows
        return (
            f"stopped with {rows:,} of {self._config.num_rows:,} rows committed in {self._storage.url}: "
            f"{rows - self._ledger.rows_before:,} by this run, and {again:,} finished rows will be generated "
            "again; run the same command again to resume"
        )

    def _loop(self) -> bool:
        """Take events until all partitions are committed; False when the job is stopped before that."""
        while not self._dispatcher.done:
            if self._stop_requested():
                return False
            self._starter.start_due()
            told = self._actors.poll(_POLL_SECONDS)
            for slot, event in told:
                self._take(slot, event)
            files = [record.partition for record in self._output.poll()]
            for slot, partition in self._dispatcher.found(files):
                self._actors.drop(slot, partition)
            self._replace_overdue(heard={slot for slot, _ in told})
            self._look_around()
            up, describe = self._fleet.num("up"), self._actors.describe
            if why := self._staffing.why_hopeless(self._clock(), up=up, describe=describe):
                raise GenerationFailedError(why)
            self._show()
        return True

    @property
    def ledger(self) -> Ledger:
        """What the job knows to be committed."""
        return self._ledger

    def snapshot(self) -> Snapshot:
        """The state of the job now."""
        fleet, ledger = self._fleet, self._ledger
        rows = min(ledger.rows + fleet.unwritten_rows, self._config.num_rows)
        ended = self._ended or self._clock()
        return Snapshot(
            job=job_of(self._config),
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
            retried_partitions=self._losses.retried_partitions,
            storage_retries=fleet.storage_retries,
            nodes_left_alone=self._staffing.nodes.left_alone(),
            seconds=ended - fleet.first_ready if fleet.first_ready else 0.0,
        )

    def _tell(self, slot: int, event: JobEvent) -> None:
        for watcher in self._watchers:
            watcher.hear(slot, event)

    def _show(self) -> None:
        snapshot = self.snapshot()
        for watcher in self._watchers:
            watcher.show(snapshot)

    def _take(self, slot: int, event: Event | Lost | Left) -> None:
        now = self._clock()
        match event:
            case Placed():
                self._fleet.place(slot, now)
                self._staffing.placed(slot, event.nodes, now)
                self._dispatcher.placed(slot, event.node_id)
                self._tell(slot, event)
                log.info("the actor of slot %d starts on %s, process %d", slot, event.host, event.pid)
            case Ready():
                self._fleet.get_ready(slot, now)
                self._staffing.ready(slot, now)
                self._tell(slot, event)
                log.info("the engine of slot %d is up after %.0f s", slot, event.seconds)
                log.debug("the engine of slot %d: %s", slot, event.figures)
            case Progress():
                has_work = event.doing != "nothing" or self._dispatcher.open_rows(slot) > 0
                self._fleet.progress(slot, event, has_work=has_work, now=now)
                self._tell(slot, event)
                self._give(slot, event, now)
            case Committed():
                self._commit(slot, event)
                self._staffing.committed(slot, now)
                files = [record.partition for record in event.files]
                for holder in self._dispatcher.committed(slot, event.partition, files):
                    self._actors.drop(holder, event.partition)
            case Lost() | Left():
                self._losses.take(slot, event, now, self._stop_requested)

    def _give(self, slot: int, event: Progress, now: float) -> None:
        if self._fleet[slot].leaving:
            return
        for partition in self._dispatcher.progress(
            slot, started=event.started, finished=event.tally.rows, live_window=event.live_window, now=now
        ):
            self._actors.give(slot, partition)
        if not self._dispatcher.num_pending:
            self._actors.last(slot)

    def _commit(self, slot: int, event: Committed) -> None:
        self._fleet.commit(slot, sum(record.rows for record in event.files))
        new = tuple(record for record in event.files if self._ledger.note(record))
        self._tell(slot, replace(event, files=new))

    def _replace_overdue(self, heard: Set[int]) -> None:
        """Give up workers whose engine hangs or does not come up. heard: slots of this turn's events."""
        for slot, cause in self._fleet.overdue(self._clock(), heard=heard):
            self._take(slot, Lost(cause=self._actors.explain(slot, cause), loss=Loss.FAILED))

    def _look_around(self) -> None:
        """Leave nodes before they go, and use new ones."""
        now = self._clock()
        if now - self._looked_around < _LOOK_AROUND_SECONDS:
            return
        self._looked_around = now
        for slot in self._actors.on_notice():
            if not self._fleet[slot].leaving:
                log.warning("the node of slot %d is about to leave: its finished rows are committed", slot)
                self._fleet.leave(slot)
                self._actors.stop(slot)
        self._starter.look_around()

    def _see_off(self, order: Callable[[int], None], seconds: float) -> None:
        """Give the workers that are up a last order; take events until all have ended, or for so long."""
        staying, deadline = set(self._fleet.ready), self._clock() + seconds
        for slot in staying:
            order(slot)
        with suppress(ClusterLostError):  # how the run ends is decided by now
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
