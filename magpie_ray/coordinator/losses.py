"""What is done when an actor is lost, or has left: its work goes to others, and it is replaced.

Invariants: an error that another try would only repeat ends the run; any other costs an actor and what it had
not committed.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from magpie_ray.coordinator.actors import Actors, Left, Loss, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import Fleet
from magpie_ray.coordinator.output_trial import OutputTrial
from magpie_ray.coordinator.staffing import Staffing
from magpie_ray.coordinator.watcher import JobEvent
from magpie_ray.dataset import partitioning
from magpie_ray.errors import (
    AcceptRateError,
    BlockedError,
    ConfigError,
    CorruptBuildError,
    RowExhaustedError,
    RuleError,
    SourceError,
    StorageError,
)

log = logging.getLogger(__name__)

# Errors that another try on another actor would only repeat.
_FATAL_ERRORS = (
    RowExhaustedError,
    AcceptRateError,
    RuleError,
    SourceError,
    ConfigError,
    CorruptBuildError,
    BlockedError,
)


class Losses:
    """Carries out what the dispatcher, the fleet and the staffing decide. tell: hears of each loss.

    retried_partitions: that lost actors left unfinished.
    """

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        actors: Actors,
        fleet: Fleet,
        staffing: Staffing,
        output_trial: OutputTrial,
        tell: Callable[[int, JobEvent], None],
    ) -> None:
        self._dispatcher, self._actors, self._fleet, self._staffing = dispatcher, actors, fleet, staffing
        self._output_trial, self._tell = output_trial, tell
        self.retried_partitions = 0

    def take(self, slot: int, event: Lost | Left, now: float, stop_requested: Callable[[], bool]) -> None:
        """The slot's actor is gone. Raises its error if another try would only repeat that.

        GenerationFailedError when a partition has failed too often, or the output can't be used any more.
        """
        self._actors.end(slot)
        if isinstance(event.error, _FATAL_ERRORS):  # the error alone is reported; nothing is generated again
            self._fleet.lose(slot, rows_to_redo=0, now=now)
            self._tell(slot, replace(event, cause=str(event.error)))
            raise event.error
        self._book(slot, event, now)
        of_partition = of_node = event.loss
        # No fault of the partition's, nor of the node's in an outage.
        if isinstance(event.error, StorageError):
            works = self._output_trial.run(event.error, stop_requested=stop_requested)
            of_partition, of_node = Loss.NODE, event.loss if works else Loss.NODE
        self._dispatcher.lost(slot, cause=event.cause, loss=of_partition)
        if isinstance(event, Lost) and event.node_id:
            self._staffing.placed(slot, {event.node_id: event.host}, now)
        wait, pauses = self._staffing.ended(slot, cause=event.cause, loss=of_node, now=now)
        for paused in pauses if len(self._actors.nodes()) > 1 else ():
            log.warning("%s. The last cause: %s", paused, paused.cause.partition("\n")[0])
            self._tell(slot, paused)
        if self._dispatcher.num_pending:
            self._fleet.expect(slot, now)
            log.info("the actor of slot %d is replaced%s", slot, f" in {wait:.0f} s" if wait >= 1 else "")

    def _book(self, slot: int, event: Lost | Left, now: float) -> None:
        """Count and tell what the loss costs."""
        redone = self._dispatcher.to_redo(slot)
        self.retried_partitions += len(redone)
        rows_to_redo = partitioning.rows_in(redone)
        lost_rows = self._fleet.lose(slot, rows_to_redo=rows_to_redo, now=now)
        self._tell(slot, event)
        left = event.loss is Loss.LEFT
        told = "the actor of slot %d left: %s" if left else "lost the actor of slot %d: %s"
        log.warning(told, slot, event.cause)
        if rows_to_redo:
            told = "%d rows of slot %d's partitions are generated again, %d or more of them were finished"
            log.warning(told, rows_to_redo, slot, lost_rows)
