"""ShardWorker, a plain class: partitions in, committed Parquet files and events out.

`run` owns the engine and is driven by one thread; `give`, `drop`, `finish` and `stop` may come from another.
What always holds: rows flow across partition borders without a drain; the engine never waits for storage
until the bounded buffer of finished partitions is full; whatever ends a worker but a kill or its storage, the
finished head of each open partition is committed first.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from magpie_ray.counters import Tally
from magpie_ray.dataset.rejects import RejectsSample
from magpie_ray.engine.protocol import Engine
from magpie_ray.errors import AcceptRateError, RowExhaustedError, StorageError
from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.conversation import Recipe
from magpie_ray.generation.rounds import Rounds
from magpie_ray.preflight.build_spec import check_prompts_fit
from magpie_ray.types import Partition, Rejection, Row
from magpie_ray.worker.committer import Committer, OpenPartition
from magpie_ray.worker.events import Committed, Event, Progress, Ready
from magpie_ray.worker.parts import make_recipe, make_window, vllm_engine
from magpie_ray.worker.spec import EngineFactory, WorkerSpec

log = logging.getLogger(__name__)

# How often a worker tells of its progress unless its spec says more rarely: enough for a progress line.
PROGRESS_SECONDS = 2.0
# So many times sooner when rows run short, and at once when they have run out, but then not so soon again:
# there may be no more anywhere.
_HUNGRY_HASTE = 4
# Finished partitions that may wait for storage before the engine does.
_MAX_UPLOADS = 4
_UPLOADERS = 2


class ShardWorker:
    """Generates the partitions it is given. Tested as it is; `ray.remote(ShardWorker)` makes it an actor."""

    def __init__(self, spec: WorkerSpec, engine_factory: EngineFactory | None = None) -> None:
        self._spec = spec
        self._engine_factory = engine_factory or vllm_engine
        self._committer = Committer(spec)
        self._changed = threading.Condition()
        self._inbox: deque[Partition] = deque()
        self._dropped: list[Partition] = []
        self._finishing = False
        self._stopping = False
        self._received_rows = 0
        self._open: list[OpenPartition] = []
        self._uploads: list[Future[Committed]] = []
        self._stored = self._dropped_rows = 0
        self._tallies: list[Tally] = []
        self._total = Tally()

    def give(self, partition: Partition) -> None:
        """Add a partition to what this worker generates."""
        with self._changed:
            self._inbox.append(partition)
            self._changed.notify_all()

    def drop(self, partition: Partition) -> None:
        """A given partition is not wanted any more: somebody else has committed its rows."""
        with self._changed:
            self._dropped.append(partition)
            self._changed.notify_all()

    def finish(self) -> None:
        """No more partitions will come: `run` ends when the work is done."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Leave soon: commit the finished heads of the open partitions, then `run` ends."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

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
            try:
                yield from self._generate(engine, rounds, window, uploader)
                while self._uploads:
                    wait(self._uploads, return_when=FIRST_COMPLETED)
                    yield from self._finished_uploads()
            except Exception as exc:
                # What is finished is committed and told all the same. Where it is storage that fails, nothing
                # more is tried: it would only keep the cause from the driver for as long again.
                if isinstance(exc, StorageError):
                    self._uploads = [upload for upload in self._uploads if not upload.cancel()]
                else:
                    if isinstance(exc, (AcceptRateError, RowExhaustedError)):
                        self._keep_rejects(rounds.take_outcomes())
                    self._commit_heads(uploader)
                yield from self._salvaged_uploads()
                raise
        yield self._progress(engine, rounds, window, busy=False)
        engine.close()

    def _generate(
        self, engine: Engine, rounds: Rounds, window: AdmissionWindow, uploader: ThreadPoolExecutor
    ) -> Iterator[Event]:
        """The loop: open what was given, step, hand full partitions on, tell of progress."""
        every = max(PROGRESS_SECONDS, self._spec.progress_seconds)
        told, dry, waited = -every, True, False
        while True:
            self._take_orders(rounds)
            if self._stopping:
                self._commit_heads(uploader)
                return
            if self._finishing and not rounds.busy and not self._inbox:
                return
            blocked = len(self._uploads) > _MAX_UPLOADS
            busy = rounds.busy and not blocked
            if busy and waited:
                # Before the step, which may never return: who is thought to store is not missed for long.
                told, waited = time.monotonic(), False
                yield self._progress(engine, rounds, window, busy=True)
            if busy:
                self._book(rounds.step(), uploader)
            yield from self._finished_uploads()
            was_dry, dry = dry, not rounds.busy
            hungry = rounds.busy and rounds.unstarted < window.live
            due = told + (every / _HUNGRY_HASTE if hungry else every)
            if time.monotonic() >= due or (dry and not was_dry):
                told, waited = time.monotonic(), not busy
                due = told + every
                yield self._progress(engine, rounds, window, busy=busy)
            if blocked:
                wait(self._uploads, timeout=max(0.0, due - time.monotonic()), return_when=FIRST_COMPLETED)
            elif not busy:
                self._sleep(until=due)

    def _take_orders(self, rounds: Rounds) -> None:
        with self._changed:
            given, dropped = list(self._inbox), self._dropped
            self._inbox.clear()
            self._dropped = []
        for partition in given:
            rejects = RejectsSample(self._spec.build_spec.config.acceptance.rejects_per_reason)
            self._open.append(OpenPartition(partition, time.monotonic(), rejects))
            self._received_rows += partition.num_rows
            rounds.add(range(partition.start, partition.stop))
        for opened in [opened for opened in self._open if opened.partition in dropped]:
            log.info("%s was dropped: somebody else has committed it", opened.partition)
            self._open.remove(opened)
            self._dropped_rows += len(opened.rows)
            rounds.discard(range(opened.partition.start, opened.partition.stop))

    def _sleep(self, *, until: float) -> None:
        """Nothing to generate: wait for a partition, an order, an upload's end, or the next progress."""
        with self._changed:
            self._changed.wait_for(self._has_news, timeout=max(0.0, until - time.monotonic()))

    def _has_news(self) -> bool:
        ended = any(upload.done() for upload in self._uploads)
        return bool(self._inbox or self._dropped) or self._stopping or self._finishing or ended

    def _book(self, outcomes: list[Row | Rejection], uploader: ThreadPoolExecutor) -> None:
        """Put outcomes into their partitions; a full partition goes to the uploader."""
        for outcome in outcomes:
            opened = self._partition_of(outcome.row_id)
            if isinstance(outcome, Row):
                opened.rows[outcome.row_id] = outcome
                tally = Tally.of_row(outcome)
            else:
                tally = Tally.of_rejection(outcome)
                opened.rejects.note(outcome)
            opened.tallies.setdefault(outcome.row_id, []).append(tally)
            self._tallies.append(tally)
            if len(opened.rows) == opened.partition.num_rows:
                self._open.remove(opened)
                self._upload(opened, uploader)

    def _partition_of(self, row_id: int) -> OpenPartition:
        for opened in self._open:
            if opened.partition.start <= row_id < opened.partition.stop:
                return opened
        raise AssertionError(f"row {row_id} belongs to no open partition")

    def _commit_heads(self, uploader: ThreadPoolExecutor) -> None:
        """What is finished from the start of a partition is a legal file; the rest is pending again."""
        for opened in self._open:
            if opened.finished_head():
                self._upload(opened, uploader)
        self._open.clear()

    def _keep_rejects(self, outcomes: Iterable[Row | Rejection]) -> None:
        """Rejections end the job: whoever wants to see them finds a sample, though there may be no row."""
        for rejection in outcomes:
            if isinstance(rejection, Rejection):
                self._partition_of(rejection.row_id).rejects.note(rejection)
        for opened in self._open:
            self._committer.keep_rejects(opened)

    def _upload(self, opened: OpenPartition, uploader: ThreadPoolExecutor) -> None:
        future = uploader.submit(self._committer.commit, opened)
        future.add_done_callback(self._wake)
        self._uploads.append(future)

    def _wake(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _finished_uploads(self) -> Iterator[Committed]:
        for upload in [upload for upload in self._uploads if upload.done()]:
            self._uploads.remove(upload)
            committed = upload.result()
            self._stored += 1
            yield committed

    def _salvaged_uploads(self) -> Iterator[Committed]:
        """Those under way that succeed: why others fail counts less than what ended the worker."""
        for upload in self._uploads:
            if upload.exception() is None:
                yield upload.result()

    def _progress(self, engine: Engine, rounds: Rounds, window: AdmissionWindow, *, busy: bool) -> Progress:
        self._total = Tally.sum([self._total, *self._tallies])
        self._tallies.clear()
        return Progress(
            tally=self._total,
            engine=replace(engine.stats(), known_tokens=rounds.known_tokens),
            started=self._received_rows - rounds.unstarted,
            live_window=window.live,
            doing="generating" if busy else "storing" if self._uploads else "nothing",
            dropped_rows=self._dropped_rows,
            stored=self._stored,
            storage_retries=self._spec.storage.retries,
        )
