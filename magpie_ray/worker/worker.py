"""ShardWorker, a plain class: partitions in, committed Parquet files and events out.

One thread drives `run`, which owns the engine; other threads may call `give`, `drop`, `last`, `finish` and
`stop`.

Invariants: rows flow across partition borders without draining the engine. The engine waits for storage only
when the bounded buffer of finished partitions is full. Whatever ends a worker, except a kill, the finished
head of each open partition is committed first, as far as storage takes it. A worker that is told to stop
first finishes the rows that precede finished ones, so that these are in a head, too.
"""

import logging
import math
import queue
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Literal

from magpie_ray.config.score import ScoreConfig
from magpie_ray.errors import AcceptRateError, RowExhaustedError, StorageError
from magpie_ray.generation.recipe import Recipe
from magpie_ray.types import Partition, Rejection
from magpie_ray.worker.committer import Committer
from magpie_ray.worker.events import Event, Progress, Ready
from magpie_ray.worker.generating import prepare_generation
from magpie_ray.worker.parts import make_recipe, vllm_engine
from magpie_ray.worker.scoring import prepare_scoring
from magpie_ray.worker.spec import EngineFactory, WorkerSpec
from magpie_ray.worker.task import BeginTask, Task

log = logging.getLogger(__name__)

# Reports come so many times sooner when rows run short. A worker that has run out of rows reports at once,
# and then not so soon again: there may be none left anywhere.
_HUNGRY_HASTE = 4
_UPLOADERS = 2
# The driver learns why a worker ends only after this.
LAST_UPLOADS_SECONDS = 30.0
# Where it is not the store that fails. An outage that lasts longer costs the rows, and not the cause.
_LAST_UPLOADS_IN_OUTAGE_SECONDS = 180.0
# Shares of cluster.notice_seconds by which the last rows are generated, and by which all are uploaded. The
# driver has yet to hear and to record what was committed.
FINISH_SHARE, UPLOADS_SHARE = 0.4, 0.7

# wake: an upload has ended, or inputs were loaded.
_Order = Literal["give", "drop", "last", "finish", "stop", "wake"]


class ShardWorker:
    """Generates the partitions it is given. The driver runs it in a Ray actor (driver.actor_process).

    max_uploads: finished partitions that may wait for storage before the engine does. last_uploads_seconds:
    after an upload has failed for good, all others together may take so long. finish_share: of
    cluster.notice_seconds, in which a worker that is told to stop still generates.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        engine_factory: EngineFactory | None = None,
        *,
        max_uploads: int = 4,
        last_uploads_seconds: float = LAST_UPLOADS_SECONDS,
        finish_share: float = FINISH_SHARE,
    ) -> None:
        self._last_uploads_seconds, self._finish_share = last_uploads_seconds, finish_share
        self._spec = spec
        self._engine_factory = engine_factory or vllm_engine
        self._max_uploads = max_uploads
        self._orders = SimpleQueue[tuple[_Order, Partition | None]]()
        self._finishing = self._stopping = False
        self._generate_until = math.inf
        self._received_rows = 0

    def give(self, partition: Partition) -> None:
        """Add a partition to those that this worker generates."""
        self._orders.put(("give", partition))

    def drop(self, partition: Partition) -> None:
        """Forget a given partition: somebody else has committed its rows."""
        self._orders.put(("drop", partition))

    def last(self) -> None:
        """Nothing is pending any more: what was given are the last rows, as far as anybody knows."""
        self._orders.put(("last", None))

    def finish(self) -> None:
        """No more partitions will come: `run` ends when the work is done."""
        self._orders.put(("finish", None))

    def stop(self) -> None:
        """Finish the rows that precede finished ones, commit the finished heads; then `run` ends.

        Generating and uploads each end within their share of cluster.notice_seconds from now on.
        """
        notice = self._spec.build_spec.config.cluster.notice_seconds
        self._spec.storage.give_up_after(UPLOADS_SHARE * notice)
        self._generate_until = min(self._generate_until, time.monotonic() + self._finish_share * notice)
        self._orders.put(("stop", None))

    def make_recipe(self, spec: WorkerSpec) -> Recipe:
        """The recipe of generated rows. A subclass may change it."""
        return make_recipe(spec)

    def _prepare(self, spec: WorkerSpec) -> BeginTask:
        """What a wrong config fails in before an engine starts, and then what begins the task over it."""
        on_loaded = partial(self._orders.put, ("wake", None))
        if isinstance(config := spec.build_spec.config, ScoreConfig):
            return prepare_scoring(spec, config, on_loaded=on_loaded)
        return prepare_generation(spec, self.make_recipe(spec), on_loaded=on_loaded)

    def run(self) -> Iterator[Event]:
        """Start the engine, then generate until told to finish or stop. Raises what ends the worker."""
        started = time.monotonic()
        spec = self._spec
        begin = self._prepare(spec)
        engine = self._engine_factory(spec)
        task = begin(engine)
        log.info("engine start %d is up: %s", spec.engine_start, engine.figures)
        yield Ready(figures=engine.figures, seconds=time.monotonic() - started)
        with ThreadPoolExecutor(_UPLOADERS) as uploader:
            committer = Committer(spec, uploader, on_upload=lambda: self._orders.put(("wake", None)))
            try:
                yield from self._generate(task, committer)
                while committer.uploads:
                    yield from self._wait_for_an_upload(task, committer)
                    yield from committer.ended_uploads()
            except Exception as exc:
                # Finished rows are committed all the same. Where storage fails, one key may be refused while
                # others are not, so all are tried; but not for as long again: the driver waits for the cause.
                storage_fails = isinstance(exc, StorageError)
                seconds = self._last_uploads_seconds if storage_fails else _LAST_UPLOADS_IN_OUTAGE_SECONDS
                spec.storage.give_up_after(seconds)
                outcomes = [*task.take_outcomes()]
                if isinstance(exc, (AcceptRateError, RowExhaustedError)):
                    committer.keep_rejects(outcomes)
                committer.book(outcome for outcome in outcomes if not isinstance(outcome, Rejection))
                committer.commit_heads()
                while committer.is_uploading:
                    yield from self._wait_for_an_upload(task, committer)
                yield from committer.last_uploads()
                # On notice the time was short; that says nothing of a store that others can still wait for.
                if not (storage_fails and self._stopping):
                    raise
                log.warning("told to stop, and not all finished rows could be stored in time: %s", exc)
            finally:
                task.close()
        yield self._progress(task, committer, busy=False)
        engine.close()

    def _generate(self, task: Task, committer: Committer) -> Iterator[Event]:
        """The loop: open what was given, step, book the outcomes, report progress."""
        every = self._spec.progress_seconds
        reported, dry, idled = -every, True, False
        task.more_to_come = True
        self._take_orders(task, committer)
        while not self._stopping and not (self._finishing and not task.busy and not task.awaited_inputs):
            busy = task.busy and len(committer.uploads) <= self._max_uploads
            if busy and idled:
                # Before the step, which may never return: a worker that stores may be silent for longer.
                reported, idled = time.monotonic(), False
                yield self._progress(task, committer, busy=True)
            if busy:
                committer.book(task.step())
            yield from committer.ended_uploads()
            was_dry, dry = dry, not task.busy and not task.awaited_inputs
            hungry = task.busy and task.unstarted < task.live_window
            due = reported + (every / _HUNGRY_HASTE if hungry else every)
            if time.monotonic() >= due or (dry and not was_dry):
                reported, idled = time.monotonic(), not busy
                due = reported + every
                yield self._progress(task, committer, busy=busy)
            self._take_orders(task, committer, wait_until=None if busy else due)
        if self._stopping:
            yield from self._finish_heads(task, committer)

    def _finish_heads(self, task: Task, committer: Committer) -> Iterator[Event]:
        """Abort the rows that no finished row follows, finish the others in time, and commit the heads."""
        for rows in committer.narrow():
            task.discard(rows)
        reported = time.monotonic()
        while task.busy and (now := time.monotonic()) < self._generate_until:
            committer.book(task.step())
            yield from committer.ended_uploads()
            if now >= reported + self._spec.progress_seconds:
                reported = now
                yield self._progress(task, committer, busy=True)
            self._take_orders(task, committer)
        committer.commit_heads()

    def _take_orders(self, task: Task, committer: Committer, *, wait_until: float | None = None) -> None:
        """Carry out all orders. With `wait_until`, wait for the first one until then."""
        timeout = 0.0 if wait_until is None else max(0.0, wait_until - time.monotonic())
        with suppress(queue.Empty):
            while True:
                order, partition = self._orders.get(timeout > 0, timeout)
                timeout = 0.0
                self._stopping |= order == "stop"
                self._finishing |= order == "finish"
                if order in ("last", "finish"):
                    task.more_to_come = False
                if partition is None:
                    continue
                rows = range(partition.start, partition.stop)
                if order == "give" and self._stopping:
                    continue  # the driver learns of the worker's end, and gives the rows to another
                if order == "give":
                    committer.open(partition)
                    self._received_rows += partition.num_rows
                    task.add(rows)
                elif committer.drop(partition):
                    task.discard(rows)

    def _wait_for_an_upload(self, task: Task, committer: Committer) -> Iterator[Progress]:
        """Until one more upload has ended, or the next report is due, which is made then."""
        running = [upload for upload in committer.uploads if not upload.done()]
        if running and not wait(running, self._spec.progress_seconds, return_when=FIRST_COMPLETED).done:
            yield self._progress(task, committer, busy=False)

    def _progress(self, task: Task, committer: Committer, *, busy: bool) -> Progress:
        waits_for_storage = committer.uploads or task.awaited_inputs
        return Progress(
            tally=committer.tally,
            engine=task.stats(),
            started=self._received_rows - task.unstarted,
            live_window=task.live_window,
            doing="generating" if busy else "storing" if waits_for_storage else "nothing",
            decided=task.decided,
            awaited_rule=task.awaited_rule,
            dropped_rows=committer.dropped_rows,
            stored=committer.stored,
            storage_retries=self._spec.storage.retries,
        )
