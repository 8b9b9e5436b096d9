"""One run of a build: the loop between the workers' events and the dispatcher's decisions.

Knows no Ray: workers are reached through the Actors protocol. What always holds: every event is taken once;
whatever ends the loop, all actors are ended.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

from magpie_ray import manifest
from magpie_ray.build import BuildRecord
from magpie_ray.config import Config
from magpie_ray.dispatch import Dispatcher
from magpie_ray.errors import (
    ConfigError,
    CorruptBuildError,
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
    RowExhaustedError,
)
from magpie_ray.metrics import Tally
from magpie_ray.progress import ProgressDisplay, Snapshot
from magpie_ray.storage import Storage
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.worker import Committed, Event, Progress, Ready

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
# How long actors get to commit the heads of their partitions when the job is told to stop.
_NOTICE_SECONDS = 30.0
# How long idle actors get to end in order when all is done.
_FAREWELL_SECONDS = 5.0
_CHECKPOINT_SECONDS = 60.0
# What another try on another actor would not change.
FATAL_ERRORS: tuple[type[MagpieError], ...] = (
    RowExhaustedError,
    ConfigError,
    CorruptBuildError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lost:
    """The slot's actor died, or its run raised. `error`: what it raised, when that is one of ours."""

    cause: str
    error: MagpieError | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """The slot's actor ended its run in order."""


class Actors(Protocol):
    """The workers of a run, one a slot, wherever they are."""

    def start(self, slot: int, *, engine_start: int) -> None:
        """Make a worker for the slot, in place of an earlier one that was ended."""

    def give(self, slot: int, partition: Partition) -> None: ...

    def finish(self, slot: int) -> None: ...

    def stop(self, slot: int) -> None: ...

    def end(self, slot: int) -> None:
        """Kill the slot's worker, if it still lives."""

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """Events that are there, at most one a slot; waits for the first up to the timeout."""

    def describe(self) -> str:
        """What the workers ask for and what there is, for the message that none could be started."""


@dataclass(slots=True)
class _Slot:
    """What is known of a slot's current worker. moved: when its engine last stepped, or had no need to."""

    ready: bool = False
    tally: Tally = field(default_factory=Tally)
    committed_rows: int = 0
    steps: int = -1
    moved: float = field(default_factory=time.monotonic)


class Job:
    """The event loop. `records`: what is committed so far, by key."""

    def __init__(
        self,
        *,
        config: Config,
        storage: Storage,
        build: BuildRecord,
        records: Sequence[PartitionRecord],
        dispatcher: Dispatcher,
        actors: Actors,
    ) -> None:
        self._config = config
        self._storage = storage
        self._build = build
        self._records = {record.partition.key: record for record in records}
        self._rows_before = sum(record.rows for record in records)
        self._committed_rows = self._rows_before
        self._dispatcher = dispatcher
        self._actors = actors
        self._slots = [_Slot() for _ in range(dispatcher.num_slots)]
        self._engine_starts = 0
        self._lost = 0
        self._lost_tally = Tally()
        self._last_up = time.monotonic()
        self._checkpoints = ThreadPoolExecutor(1)
        self._checkpoint: Future[None] = Future()
        self._checkpoint.set_result(None)
        self._next_checkpoint = self._last_up + _CHECKPOINT_SECONDS
        self._first_ready: float | None = None
        self._ended: float | None = None

    def work(self, display: ProgressDisplay, stop_requested: Callable[[], bool]) -> None:
        """Run workers until every partition is committed.

        InterruptedJobError when told to stop; GenerationFailedError when it gives up; what a worker raised
        when another try would not change it.
        """
        try:
            for slot in range(len(self._slots)):
                self._start(slot)
            try:
                done = self._loop(display, stop_requested)
            except (GenerationFailedError, RowExhaustedError):
                self._take_leave(display)
                raise
            if not done:
                self._take_leave(display)
                raise InterruptedJobError(
                    f"stopped with {self._committed_rows:,} of {self._config.num_rows:,} rows committed in "
                    f"{self._storage.url}; run the same command again to go on"
                )
            self._ended = time.monotonic()
            for slot, state in enumerate(self._slots):
                if state.ready:
                    self._actors.finish(slot)
            self._see_off(_FAREWELL_SECONDS, display)
        finally:
            for slot in range(len(self._slots)):
                self._actors.end(slot)
            self._checkpoints.shutdown()

    def _loop(self, display: ProgressDisplay, stop_requested: Callable[[], bool]) -> bool:
        """Take events until all is committed; False when told to stop before that."""
        while not self._dispatcher.done:
            if stop_requested():
                return False
            for slot, event in self._actors.poll(_POLL_SECONDS):
                self._take(slot, event)
            self._check_times()
            display.show(self.snapshot())
            if time.monotonic() >= self._next_checkpoint:
                self._next_checkpoint = time.monotonic() + _CHECKPOINT_SECONDS
                self._write_checkpoint()
        return True

    def snapshot(self) -> Snapshot:
        """Where the job stands."""
        under_way = sum(slot.tally.rows - slot.committed_rows for slot in self._slots)
        rows = min(self._committed_rows + max(0, under_way), self._config.num_rows)
        tally = Tally.sum([self._lost_tally, *(slot.tally for slot in self._slots)])
        return Snapshot(
            num_rows=self._config.num_rows,
            rows=rows,
            rows_this_run=rows - self._rows_before,
            tokens=tally.tokens,
            rejected=sum(tally.rejected.values()),
            attempts=tally.attempts,
            actors_up=sum(slot.ready for slot in self._slots),
            actors_wanted=len(self._slots),
            lost=self._lost,
            seconds=(self._ended or time.monotonic()) - self._first_ready if self._first_ready else 0.0,
        )

    def _start(self, slot: int) -> None:
        self._actors.start(slot, engine_start=self._engine_starts)
        self._engine_starts += 1

    def _take(self, slot: int, event: Event | Lost | Left) -> None:
        state = self._slots[slot]
        match event:
            case Ready():
                state.ready, state.moved = True, time.monotonic()
                self._first_ready = self._first_ready or state.moved
                log.info("engine %d is up after %.0f s: %s", slot, event.seconds, event.figures)
            case Progress():
                state.tally = event.tally
                if event.engine.steps != state.steps or not event.busy:
                    state.steps, state.moved = event.engine.steps, time.monotonic()
                for partition in self._dispatcher.progress(
                    slot, started=event.started, live_window=event.live_window
                ):
                    self._actors.give(slot, partition)
            case Committed():
                self._note_commit(slot, event)
                self._dispatcher.committed(slot, event.partition, event.record)
            case Lost():
                if isinstance(event.error, FATAL_ERRORS):
                    raise event.error
                self._lose(slot, cause=event.cause)
            case Left():
                self._lose(slot, cause="it left without having been told to")

    def _note_commit(self, slot: int, event: Committed) -> None:
        self._slots[slot].committed_rows += event.partition.num_rows
        if event.record.partition.key not in self._records:
            self._records[event.record.partition.key] = event.record
            self._committed_rows += event.record.rows

    def _lose(self, slot: int, *, cause: str) -> None:
        """The worker is gone, or as good as gone."""
        log.warning("lost the actor of slot %d: %s", slot, cause)
        self._actors.end(slot)
        self._lost += 1
        self._lost_tally = Tally.sum([self._lost_tally, self._slots[slot].tally])
        self._slots[slot] = _Slot()
        if self._dispatcher.lost(slot, cause=cause):
            self._start(slot)

    def _check_times(self) -> None:
        """Replace workers whose engine stands still or that say nothing; give up when none is up at all."""
        now, limits = time.monotonic(), self._config.cluster
        for index, slot in enumerate(self._slots):
            if slot.ready and now - slot.moved > limits.stall_timeout_seconds:
                seconds = f"{limits.stall_timeout_seconds:g} s (cluster.stall_timeout_seconds)"
                self._lose(index, cause=f"no engine step for {seconds}")
        if any(slot.ready for slot in self._slots):
            self._last_up = now
        elif now - self._last_up > limits.start_timeout_seconds:
            raise GenerationFailedError(
                f"no engine came up within {limits.start_timeout_seconds:g} s "
                f"(cluster.start_timeout_seconds): {self._actors.describe()}"
            )

    def _take_leave(self, display: ProgressDisplay) -> None:
        """Let the workers commit what they have finished."""
        for slot, state in enumerate(self._slots):
            if state.ready:
                self._actors.stop(slot)
        self._see_off(_NOTICE_SECONDS, display)
        wait([self._checkpoint])
        self._write_checkpoint()

    def _see_off(self, seconds: float, display: ProgressDisplay) -> None:
        """Take the last events of the workers that are up, until all have left or the time is over."""
        deadline = time.monotonic() + seconds
        staying = {index for index, slot in enumerate(self._slots) if slot.ready}
        while staying and (left := deadline - time.monotonic()) > 0:
            for slot, event in self._actors.poll(min(left, _POLL_SECONDS)):
                match event:
                    case Progress():
                        self._slots[slot].tally = event.tally
                    case Committed():
                        self._note_commit(slot, event)
                    case Lost() | Left():
                        self._actors.end(slot)
                        staying.discard(slot)
            display.show(self.snapshot())

    def _write_checkpoint(self) -> None:
        """Beside the loop: it only saves reading footers, so that it holds up nothing and may fail."""
        if not self._checkpoint.done():
            return
        if error := self._checkpoint.exception():
            log.warning("the last checkpoint could not be written: %s", error)
        self._checkpoint = self._checkpoints.submit(
            manifest.write_manifest,
            self._storage,
            self._build,
            list(self._records.values()),
            num_rows=self._config.num_rows,
        )
