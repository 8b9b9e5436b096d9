"""ShardWorker, a plain class: partitions in, committed Parquet files and events out.

One thread drives `run`, which owns the engine; other threads may call `give`, `drop`, `finish` and `stop`.

Invariants: rows flow across partition borders without draining the engine. The engine waits for storage only
when the bounded buffer of finished partitions is full. Whatever ends a worker, except a kill or its storage,
the finished head of each open partition is committed first.
"""

import logging
import queue
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import replace
from queue import SimpleQueue
from typing import Literal

from magpie_ray.errors import AcceptRateError, RowExhaustedError, StorageError
from magpie_ray.generation.conversation import Recipe
from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.build_spec import check_prompts_fit
from magpie_ray.types import Partition
from magpie_ray.worker.committer import Committer
from magpie_ray.worker.events import Event, Progress, Ready
from magpie_ray.worker.parts import make_recipe, make_window, vllm_engine
from magpie_ray.worker.spec import EngineFactory, WorkerSpec

log = logging.getLogger(__name__)

# Reports come so many times sooner when rows run short. A worker that has run out of rows reports at once,
# and then not so soon again: there may be none left anywhere.
_HUNGRY_HASTE = 4
_UPLOADERS = 2

# wake: an upload has ended.
_Order = Literal["give", "drop", "finish", "stop", "wake"]


class ShardWorker:
    """Generates the partitions it is given. The driver runs it in a Ray actor (driver.actor_process).

    max_uploads: finished partitions that may wait for storage before the engine does.
    """

    def __init__(
        self, spec: WorkerSpec, engine_factory: EngineFactory | None = None, *, max_uploads: int = 4
    ) -> None:
        self._spec = spec
        self._engine_factory = engine_factory or vllm_engine
        self._max_uploads = max_uploads
        self._orders = SimpleQueue[tuple[_Order, Partition | None]]()
        self._finishing = self._stopping = False
        self._received_rows = 0

    def give(self, partition: Partition) -> None:
        """Add a partition to those that this worker generates."""
        self._orders.put(("give", partition))

    def drop(self, partition: Partition) -> None:
        """Forget a given partition: somebody else has committed its rows."""
        self._orders.put(("drop", partition))

    def finish(self) -> None:
        """No more partitions will come: `run` ends when the work is done."""
        self._orders.put(("finish", None))

    def stop(self) -> None:
        """Commit the finished heads of the open partitions; then `run` ends."""
        self._orders.put(("stop", None))

    def make_recipe(self, spec: WorkerSpec) -> Recipe:
        """The recipe of the rows. A subclass may change it."""
        return make_recipe(spec)

    def run(self) -> Iterator[Event]:
        """Start the engine, then generate until told to finish or stop. Raises what ends the worker."""
        started = time.monotonic()
        spec = self._spec
        recipe = self.make_recipe(spec)
        engine = self._engine_factory(spec)
        check_prompts_fit(spec.build_spec, max_model_len=engine.figures.max_model_len)
        window = make_window(spec, engine.figures)
        log.info("engine start %d is up: %s, %s", spec.engine_start, engine.figures, window)
        yield Ready(figures=engine.figures, seconds=time.monotonic() - started)
        with ThreadPoolExecutor(1) as decider, ThreadPoolExecutor(_UPLOADERS) as uploader:
            rounds = Rounds(engine, recipe, window, executor=decider)
            committer = Committer(spec, uploader, on_upload=lambda: self._orders.put(("wake", None)))
            try:
                yield from self._generate(rounds, committer)
                while committer.uploads:
                    wait(committer.uploads, return_when=FIRST_COMPLETED)
                    yield from committer.ended_uploads()
            except Exception as exc:
                # Finished rows are committed all the same. Where storage fails, nothing more is tried: that
                # would only keep the cause from the driver for as long again.
                storage_fails = isinstance(exc, StorageError)
                if isinstance(exc, (AcceptRateError, RowExhaustedError)):
                    committer.keep_rejects(rounds.take_outcomes())
                if not storage_fails:
                    committer.commit_heads()
                yield from committer.last_uploads(start_more=not storage_fails)
                raise
        yield self._progress(rounds, committer, busy=False)
        engine.close()

    def _generate(self, rounds: Rounds, committer: Committer) -> Iterator[Event]:
        """The loop: open what was given, step, book the outcomes, report progress."""
        every = self._spec.progress_seconds
        reported, dry, idled = -every, True, False
        self._take_orders(rounds, committer)
        while not self._stopping and not (self._finishing and not rounds.busy):
            busy = rounds.busy and len(committer.uploads) <= self._max_uploads
            if busy and idled:
                # Before the step, which may never return: a worker that stores may be silent for longer.
                reported, idled = time.monotonic(), False
                yield self._progress(rounds, committer, busy=True)
            if busy:
                committer.book(rounds.step())
            yield from committer.ended_uploads()
            was_dry, dry = dry, not rounds.busy
            hungry = rounds.busy and rounds.unstarted < rounds.window.live
            due = reported + (every / _HUNGRY_HASTE if hungry else every)
            if time.monotonic() >= due or (dry and not was_dry):
                reported, idled = time.monotonic(), not busy
                due = reported + every
                yield self._progress(rounds, committer, busy=busy)
            self._take_orders(rounds, committer, wait_until=None if busy else due)
        if self._stopping:
            committer.commit_heads()

    def _take_orders(self, rounds: Rounds, committer: Committer, *, wait_until: float | None = None) -> None:
        """Carry out all orders. With `wait_until`, wait for the first one, or an upload's end, until then."""
        timeout = 0.0 if wait_until is None else max(0.0, wait_until - time.monotonic())
        with suppress(queue.Empty):
            while True:
                order, partition = self._orders.get(timeout > 0, timeout)
                timeout = 0.0
                self._stopping |= order == "stop"
                self._finishing |= order == "finish"
                if partition is None:
                    continue
                rows = range(partition.start, partition.stop)
                if order == "give":
                    committer.open(partition)
                    self._received_rows += partition.num_rows
                    rounds.add(rows)
                elif committer.drop(partition):
                    rounds.discard(rows)

    def _progress(self, rounds: Rounds, committer: Committer, *, busy: bool) -> Progress:
        return Progress(
            tally=committer.tally,
            engine=replace(rounds.engine.stats(), known_tokens=rounds.known_tokens),
            started=self._received_rows - rounds.unstarted,
            live_window=rounds.window.live,
            doing="generating" if busy else "storing" if committer.uploads else "nothing",
            dropped_rows=committer.dropped_rows,
            stored=committer.stored,
            storage_retries=self._spec.storage.retries,
        )
