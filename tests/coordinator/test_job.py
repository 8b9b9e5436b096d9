"""The event loop of a run, over workers in threads and over scripted ones."""

import queue
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.actors import Left, Loss, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.staffing import Pauses
from magpie_ray.coordinator.watcher import Snapshot, Watcher
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.dataset import manifest, partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.errors import (
    AcceptRateError,
    BlockedError,
    ClusterLostError,
    CorruptBuildError,
    EngineError,
    GenerationFailedError,
    InterruptedJobError,
    MagpieError,
    NoRoomError,
    PreflightError,
    RowExhaustedError,
    RuleError,
    StorageError,
)
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, PartitionRecord
from magpie_ray.utils.awake import AwakeClock
from magpie_ray.worker.events import Committed, Event, Placed, Progress, Ready
from magpie_ray.worker.spec import WorkerSpec
from magpie_ray.worker.worker import ShardWorker
from tests.support.engines import FIGURES, ScriptedEngine
from tests.support.executors import AtOnce

Told = Event | Lost | Left
GRID = 10


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return make_config(tmp_path)


def make_config(output: Path, *overrides: str) -> Config:
    return load_config(None, ["num_rows=100", "n_turns=2", f"output.path={output}", *overrides])


class Shown(Watcher):
    """Keeps what it was shown."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []

    def show(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)


class Found(OutputSync):
    """What each poll finds is the test's to say."""

    def __init__(self, *args: Any, polls: list[list[PartitionRecord]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._polls = deque(polls)

    def poll(self) -> list[PartitionRecord]:
        return self._polls.popleft() if self._polls else []


class Closed(OutputSync):
    """Says how long it was waited for at the end."""

    waited: float

    def close(self, seconds: float, *, checkpoint: bool = True) -> None:
        self.waited = seconds
        super().close(seconds, checkpoint=checkpoint)


def never() -> bool:
    return False


@dataclass
class Run:
    """A job on an output, with what it needs."""

    config: Config
    actors: "ThreadActors | ScriptedActors"
    slots: int
    records: list[PartitionRecord] = field(default_factory=list)
    shown: Shown = field(default_factory=Shown)
    history: ActorHistory = field(default_factory=ActorHistory)
    storage: Storage | None = None
    output: Callable[..., OutputSync] = OutputSync

    def __post_init__(self) -> None:
        build = BuildRecord(
            identity={},
            rows_per_partition=GRID,
            chat_format={},
            columns=(),
            compression="zstd",
            config={},
            versions={},
        )
        self.storage = self.storage or Storage(self.config.output.path)
        ledger = Ledger(self.records, run=1)
        done = [record.partition for record in self.records]
        dispatcher = Dispatcher(
            partitioning.pending(self.config.num_rows, GRID, done),
            num_slots=self.slots,
            grid=GRID,
            max_failures_per_partition=self.config.cluster.max_failures_per_partition,
        )
        self.job = Job(
            config=self.config,
            storage=self.storage,
            ledger=ledger,
            output=self.output(self.storage, build, ledger, num_rows=self.config.num_rows),
            dispatcher=dispatcher,
            actors=self.actors,
            history=self.history,
            clock=self.actors.clock,
            pauses=self.actors.pauses,
            draw=random.Random(0),
        )

    def work(self, stop_requested: Callable[[], bool] = never) -> None:
        try:
            self.job.work([self.shown], stop_requested)
        finally:
            assert not self.actors.running, "actors were left behind"

    def manifest(self) -> list[PartitionRecord]:
        return list(manifest.read_manifest(Storage(self.config.output.path)).values())


# Real workers, in threads.


class ThreadActors:
    """Workers in threads. One that is ended generates no more, and nothing more is heard of it."""

    clock = staticmethod(time.monotonic)
    pauses = Pauses(restart_seconds=(0.01,))

    def __init__(
        self, config: Config, factory: Callable[[WorkerSpec], SimulatedEngine], *, run: int = 1
    ) -> None:
        self._config, self._factory, self._run = config, factory, run
        self._build_spec: BuildSpec = resolve_build(config)
        self._events = queue.Queue[tuple[int, int, Told]]()
        self.running: dict[int, tuple[int, ShardWorker]] = {}
        self._ended = set[int]()
        self.threads: list[threading.Thread] = []
        self.starts: list[tuple[int, int]] = []

    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        self.starts.append((slot, engine_start))
        spec = WorkerSpec(
            build_spec=self._build_spec,
            storage=Storage(self._config.output.path),
            fingerprint="f" * 64,
            run=self._run,
            engine_start=engine_start,
            device="cpu",
        )
        worker = ShardWorker(spec, self._mortal_engine)
        self.running[slot] = (engine_start, worker)
        thread = threading.Thread(target=self._work, args=(slot, engine_start, worker), daemon=True)
        self.threads.append(thread)
        thread.start()

    def _mortal_engine(self, spec: WorkerSpec) -> SimulatedEngine:
        engine = self._factory(spec)
        step = engine.step

        def step_while_alive():  # type: ignore[no-untyped-def]
            if spec.engine_start in self._ended:
                raise EngineError("ended")
            return step()

        engine.step = step_while_alive  # type: ignore[method-assign]
        return engine

    def _work(self, slot: int, engine_start: int, worker: ShardWorker) -> None:
        try:
            for event in worker.run():
                self._events.put((slot, engine_start, event))
        except MagpieError as exc:
            self._events.put((slot, engine_start, Lost(cause=str(exc), loss=Loss.FAILED, error=exc)))
        else:
            self._events.put((slot, engine_start, Left()))

    def give(self, slot: int, partition: Partition) -> None:
        self.running[slot][1].give(partition)

    def drop(self, slot: int, partition: Partition) -> None:
        self.running[slot][1].drop(partition)

    def last(self, slot: int) -> None:
        self.running[slot][1].last()

    def finish(self, slot: int) -> None:
        self.running[slot][1].finish()

    def stop(self, slot: int) -> None:
        self.running[slot][1].stop()

    def end(self, slot: int) -> None:
        if slot in self.running:
            engine_start, worker = self.running.pop(slot)
            self._ended.add(engine_start)
            worker.finish()

    def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
        try:
            slot, engine_start, event = self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            return []
        current = self.running.get(slot)
        return [(slot, event)] if current and current[0] == engine_start else []

    def capacity(self) -> int:
        return 0

    def nodes(self) -> frozenset[str]:
        return frozenset()

    def on_notice(self) -> list[int]:
        return []

    def explain(self, slot: int, cause: str) -> str:
        return cause

    def describe(self) -> str:
        return "threads"


@pytest.fixture
def thread_actors(config: Config) -> Iterator[Callable[..., ThreadActors]]:
    made: list[ThreadActors] = []

    def make(factory: Callable[[WorkerSpec], SimulatedEngine], *, run: int = 1) -> ThreadActors:
        made.append(ThreadActors(config, factory, run=run))
        return made[-1]

    yield make
    for thread in (thread for actors in made for thread in actors.threads):
        thread.join(timeout=30)
        assert not thread.is_alive()


def row_ids(output: str) -> list[int]:
    storage = Storage(output)
    files = [pq.read_table(pa.BufferReader(storage.read(item.key))) for item in storage.list_objects("data")]
    return [row_id for table in files for row_id in table["row_id"].to_pylist()]


def test_a_job_ends_when_every_row_is_committed(
    config: Config, thread_actors: Callable[..., ThreadActors]
) -> None:
    run = Run(config, thread_actors(ScriptedEngine(reject_every=30)), slots=2)
    run.work()
    assert row_ids(config.output.path) == list(range(100))
    last = run.shown.snapshots[-1]
    assert (last.rows, last.rows_this_run, last.lost) == (100, 100, 0)
    made = last.generated
    assert made.attempts >= 100 + sum(made.rejected.values()) > 100  # more where a partition went to two
    assert made.tokens > 0
    assert last.committed.rows == 100
    assert last.committed_rows == 100
    assert last.seconds > 0


def dying_once(after_steps: int, *, engine_start: int = 0) -> Callable[[WorkerSpec], SimulatedEngine]:
    """Engines of which that of one start fails."""

    def factory(spec: WorkerSpec) -> SimulatedEngine:
        engine = ScriptedEngine()(spec)
        step = engine.step

        def step_or_die():  # type: ignore[no-untyped-def]
            if spec.engine_start == engine_start and engine.stats().steps >= after_steps:
                raise EngineError("the GPU fell off the bus")
            return step()

        engine.step = step_or_die  # type: ignore[method-assign]
        return engine

    return factory


def test_a_lost_actor_is_replaced_under_a_new_engine_start_and_its_partitions_are_redone(
    config: Config, thread_actors: Callable[..., ThreadActors]
) -> None:
    actors = thread_actors(dying_once(after_steps=30))
    run = Run(config, actors, slots=2)
    run.work()
    assert row_ids(config.output.path) == list(range(100))
    assert actors.starts == [(0, 0), (1, 1), (0, 2)]
    assert run.shown.snapshots[-1].lost == 1


def test_an_interrupted_job_commits_what_is_finished_and_the_next_one_does_the_rest(
    config: Config, thread_actors: Callable[..., ThreadActors]
) -> None:
    run = Run(config, thread_actors(ScriptedEngine()), slots=2)

    def after_the_first_commit() -> bool:
        return any(snapshot.rows >= GRID for snapshot in run.shown.snapshots)

    with pytest.raises(InterruptedJobError, match="run the same command again to resume") as stopped:
        run.work(after_the_first_commit)
    done = row_ids(config.output.path)
    assert f": {len(done)} by this run, and 0 finished rows will be generated again" in str(stopped.value)
    records = run.manifest()
    assert done == [row for record in records for row in range(record.start, record.stop)]
    again = Run(config, thread_actors(ScriptedEngine(), run=2), slots=3, records=records)
    if len(done) < config.num_rows:
        again.work()
    assert row_ids(config.output.path) == list(range(100))


def test_what_is_never_accepted_ends_the_job_at_once(
    config: Config, thread_actors: Callable[..., ThreadActors]
) -> None:
    actors = thread_actors(ScriptedEngine(reject_every=1))
    with pytest.raises(AcceptRateError, match=r"\d+ empty, the user's message"):
        Run(config, actors, slots=2).work()
    assert len(actors.starts) == 2


# Scripted workers: every event at the moment that the test wants.


class ScriptedActors:
    """Workers that are scripts: what the n-th engine start tells, given what it was given so far.

    poll_seconds: that each poll takes by the job's clock. present: the nodes of the cluster. avoided: of each
    start.
    """

    pauses: Pauses | None = None

    def __init__(
        self,
        *scripts: "Script",
        capacity: int = 0,
        poll_seconds: float = 1.0,
        present: Sequence[str] = (),
    ) -> None:
        self._scripts = scripts
        self.present = frozenset(present)
        self.avoided: list[frozenset[str]] = []
        self.started_at: list[float] = []
        self._poll_seconds, self._now = poll_seconds, 0.0
        self.room = capacity
        self.leaving: list[int] = []
        self.running: dict[int, Script] = {}
        self.starts: list[int] = []
        self.orders: list[tuple[str, int]] = []
        self.dropped: list[Partition] = []

    def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
        self.starts.append(slot)
        self.avoided.append(avoid)
        self.started_at.append(self._now)
        self.running[slot] = self._scripts[min(engine_start, len(self._scripts) - 1)].fresh()

    def give(self, slot: int, partition: Partition) -> None:
        self.running[slot].given.append(partition)

    def drop(self, slot: int, partition: Partition) -> None:
        self.orders.append(("drop", slot))
        self.dropped.append(partition)
        if partition in self.running[slot].given:
            self.running[slot].given.remove(partition)

    def last(self, slot: int) -> None:
        """Scripts have no cohorts."""

    def finish(self, slot: int) -> None:
        self.orders.append(("finish", slot))
        self.running[slot].told.append(Left())

    def stop(self, slot: int) -> None:
        self.orders.append(("stop", slot))
        self.running[slot].told.append(Left())

    def end(self, slot: int) -> None:
        self.running.pop(slot, None)

    def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
        assert timeout_seconds > 0
        self._now += self._poll_seconds
        told = [(slot, script.next_event()) for slot, script in self.running.items()]
        return [(slot, event) for slot, event in told if event is not None]

    def capacity(self) -> int:
        return self.room

    def clock(self) -> float:
        return self._now

    def nodes(self) -> frozenset[str]:
        return self.present

    def on_notice(self) -> list[int]:
        return [slot for slot in self.leaving if slot in self.running]

    def explain(self, slot: int, cause: str) -> str:
        return f"{cause}, its log says so"

    def describe(self) -> str:
        return "2 actors want a GPU each"


@dataclass
class Script:
    """Tells `told` first; then commits what it is given, if it `works`, else says the same progress again."""

    told: Sequence[Told] | deque[Told] = ()
    works: bool = True
    speaks: bool = True
    doing: Literal["generating", "storing", "nothing"] = "generating"
    given: deque[Partition] = field(default_factory=deque)
    received: int = 0

    def fresh(self) -> "Script":
        return Script(deque(self.told), works=self.works, speaks=self.speaks, doing=self.doing)

    def next_event(self) -> Told | None:
        if self.told:
            assert isinstance(self.told, deque)
            return self.told.popleft()
        if self.works and self.given:
            partition = self.given.popleft()
            self.received += partition.num_rows
            record = PartitionRecord(
                start=partition.start, stop=partition.stop, fingerprint="f", run=1, size=1, user_tokens=5
            )
            return Committed(partition=partition, files=(record,), seconds=0.0)
        return progress(started=self.received, doing=self.doing) if self.speaks else None


def progress(
    *, started: int = 0, doing: Literal["generating", "storing", "nothing"] = "generating"
) -> Progress:
    tally = Tally(rows=started, user_tokens=started)
    return Progress(tally=tally, engine=EngineStats(steps=1), started=started, live_window=16, doing=doing)


def lost(cause: str, *, loss: Loss = Loss.FAILED, error: MagpieError | None = None) -> Lost:
    return Lost(cause=cause, loss=loss, error=error)


READY = Ready(figures=FIGURES, seconds=1.0)
WORKING = Script([READY], doing="nothing")
SILENT = Script(works=False, speaks=False)


def test_a_worker_whose_engine_stands_still_is_replaced(tmp_path: Path) -> None:
    standing = Script([READY], works=False)
    actors = ScriptedActors(standing, WORKING, poll_seconds=5.0)
    run = Run(make_config(tmp_path, "cluster.stall_timeout_seconds=20"), actors, slots=1)
    run.work()
    assert actors.starts == [0, 0]
    assert run.shown.snapshots[-1].rows == 100


def test_workers_hear_when_nothing_is_pending_any_more_and_not_before(tmp_path: Path) -> None:
    given, heard = [0], list[int]()

    class Hearing(ScriptedActors):
        def give(self, slot: int, partition: Partition) -> None:
            given[0] += partition.num_rows
            super().give(slot, partition)

        def last(self, slot: int) -> None:
            heard.append(given[0])

    Run(make_config(tmp_path), Hearing(WORKING), slots=2).work()
    assert set(heard) == {100}


def test_the_lives_of_the_actors_are_recorded_with_what_they_committed(tmp_path: Path) -> None:
    placed = Placed(node_id="n", host="node-1", pid=1, log_path="")
    dies = Script([placed, READY, progress(started=10), lost("its node is gone")], works=False)
    actors = ScriptedActors(dies, Script([READY], doing="nothing"))
    run = Run(make_config(tmp_path), actors, slots=1)
    run.work()
    first, second = run.history.record().lives
    assert (first.node, first.rows, first.end, first.cause) == ("node-1", 0, "lost", "its node is gone")
    assert (second.slot, second.rows, second.end) == (0, 100, "ended")
    assert second.ready is not None


def test_a_worker_that_is_up_and_says_nothing_is_replaced_though_it_was_given_nothing(tmp_path: Path) -> None:
    mute = Script([READY], works=False, speaks=False)
    actors = ScriptedActors(mute, WORKING, poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.stall_timeout_seconds=20"), actors, slots=1).work()
    assert actors.starts == [0, 0]


def test_a_worker_that_waits_for_storage_is_no_stall(tmp_path: Path) -> None:
    waits = [progress(doing="storing") for _ in range(50)]
    actors = ScriptedActors(Script([READY, *waits], doing="nothing"), poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.stall_timeout_seconds=20"), actors, slots=1).work()
    assert actors.starts == [0]


@pytest.mark.parametrize("when", [1, 9], ids=["generating", "starting"])
def test_a_driver_that_was_suspended_gives_up_no_worker_for_what_it_did_not_hear(
    tmp_path: Path, when: int
) -> None:
    class Suspended(ScriptedActors):
        """The driver sleeps for an hour while it waits for events, and hears the first ones a poll later."""

        def __init__(self) -> None:
            super().__init__(Script([PLACED] * when + [READY], doing="nothing"), poll_seconds=0.5)
            self.clock = AwakeClock(lambda: self._now)  # type: ignore[method-assign]
            self.polls = 0

        def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
            self.polls += 1
            told = super().poll(timeout_seconds)
            if self.polls != 3:
                return told
            self._now += 3600.0
            return []

    settings = ["cluster.stall_timeout_seconds=20", "cluster.start_timeout_seconds=20"]
    actors = Suspended()
    Run(make_config(tmp_path, *settings), actors, slots=1).work()
    assert actors.starts == [0]


def test_idle_reports_of_the_time_in_which_the_driver_was_suspended_are_no_silence(tmp_path: Path) -> None:
    """The worker waited for work as long as the driver slept. It works from the first order on."""
    idle = progress(doing="nothing")
    actors = ScriptedActors(Script([PLACED, READY, *[idle] * 100]), poll_seconds=0.5)
    Run(make_config(tmp_path, "cluster.stall_timeout_seconds=20"), actors, slots=1).work()
    assert actors.starts == [0]


def test_without_any_engine_in_time_the_job_gives_up_and_says_what_is_wanted(tmp_path: Path) -> None:
    actors = ScriptedActors(SILENT)
    run = Run(make_config(tmp_path, "cluster.start_timeout_seconds=20"), actors, slots=2)
    with pytest.raises(GenerationFailedError, match=r"could be placed for 20 s.*2 actors want a GPU"):
        run.work()


def test_a_job_whose_only_engine_is_lost_and_never_comes_back_gives_up_too(tmp_path: Path) -> None:
    dies = Script([READY, progress(), lost("node gone", loss=Loss.LEFT)], works=False)
    actors = ScriptedActors(dies, SILENT)
    run = Run(make_config(tmp_path, "cluster.start_timeout_seconds=20"), actors, slots=1)
    with pytest.raises(GenerationFailedError, match="no actor could be placed for"):
        run.work()
    assert actors.starts == [0, 0]


def test_a_replacement_gets_the_whole_time_to_come_up(tmp_path: Path) -> None:
    long_up = Script([READY, *[progress(doing="storing")] * 50, lost("node gone")], works=False)
    actors = ScriptedActors(long_up, WORKING, poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.start_timeout_seconds=20"), actors, slots=1).work()
    assert actors.starts == [0, 0]


def test_the_job_goes_on_with_the_engines_that_are_up(tmp_path: Path) -> None:
    actors = ScriptedActors(SILENT, WORKING, SILENT)
    run = Run(make_config(tmp_path, "cluster.start_timeout_seconds=2"), actors, slots=2)
    run.work()
    assert run.shown.snapshots[-1].rows == 100
    assert actors.orders == [("finish", 1)]


def test_an_engine_that_never_starts_ends_the_job_with_its_cause(config: Config) -> None:
    actors = ScriptedActors(Script([lost("no room for the weights")]))
    with pytest.raises(GenerationFailedError, match="no room for the weights"):
        Run(config, actors, slots=2).work()


def test_a_partition_that_kills_its_actors_ends_the_job_with_the_cause(config: Config) -> None:
    dies = Script([READY, progress(), lost("illegal memory access")], works=False)
    with pytest.raises(GenerationFailedError, match=r"failed 3 times.*illegal memory access"):
        Run(config, ScriptedActors(dies), slots=1).work()


@pytest.mark.parametrize(
    "error",
    [
        RowExhaustedError("row 3"),
        RuleError("my_rule failed"),
        CorruptBuildError("part-0 is foreign"),
        BlockedError("part-0 is a directory"),
    ],
)
def test_what_another_try_would_not_change_is_raised_as_it_is(
    config: Config, error: MagpieError, caplog: pytest.LogCaptureFixture
) -> None:
    actors = ScriptedActors(Script([READY, lost(f"{error}\n  its log: ...", error=error)]), SILENT)
    with pytest.raises(type(error)) as caught:
        Run(config, actors, slots=2).work()
    assert caught.value is error
    assert len(actors.starts) == 2
    assert str(error) not in caplog.text, "it is told once"
    assert "generated again" not in caplog.text


def test_of_a_lost_worker_the_log_says_why_and_what_becomes_of_its_rows(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    dies = Script([READY, progress(), lost("It broke.")], works=False)
    Run(config, ScriptedActors(dies, WORKING), slots=1).work()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told[0] == "lost the actor of slot 0: It broke."
    assert re.fullmatch(r"\d+ rows of slot 0's partitions are generated again, .*", told[1])


def test_what_a_failing_worker_had_finished_behind_a_committed_head_counts_as_lost(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Partition(start=0, stop=10)
    head = PartitionRecord(start=0, stop=4, fingerprint="f", run=1, size=1)
    ends = Committed(partition=whole, files=(head,), seconds=0.0)
    dies = Script([READY, progress(), progress(started=9), ends, lost("It broke.")], works=False)
    run = Run(config, ScriptedActors(dies, WORKING), slots=1)
    run.work()
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told[1] == ("26 rows of slot 0's partitions are generated again, 5 or more of them were finished")
    assert run.shown.snapshots[-1].lost_rows == 5
    assert run.shown.snapshots[-1].rows == 100


def test_a_worker_that_leaves_without_being_told_is_replaced(config: Config) -> None:
    leaves = Script([READY, progress(), Left()], works=False)
    actors = ScriptedActors(leaves, WORKING)
    run = Run(config, actors, slots=1)
    run.work()
    assert run.shown.snapshots[-1].rows == 100
    assert actors.starts == [0, 0]


def test_a_worker_that_dies_after_the_last_commit_changes_nothing(config: Config) -> None:
    class ActorLogs(ScriptedActors):
        def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
            told = super().poll(timeout_seconds)
            if any(isinstance(e, Committed) and e.partition.stop == 100 for _, e in told):
                told += [(slot, lost("too late")) for slot in self.running]
            return told

    actors = ActorLogs(WORKING)
    run = Run(config, actors, slots=1)
    run.work()
    assert actors.starts == [0]


def test_a_stop_is_passed_to_the_workers_that_are_up_and_the_rest_are_not_waited_for(config: Config) -> None:
    actors = ScriptedActors(Script([READY], works=False), SILENT)
    run = Run(config, actors, slots=2)
    with pytest.raises(InterruptedJobError, match="0 of 100 rows committed"):
        run.work(lambda: any(snapshot.actors_up for snapshot in run.shown.snapshots))
    assert actors.orders == [("stop", 0)]


class FailingActors(ScriptedActors):
    """Every poll raises."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(WORKING)
        self._error = error

    def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
        raise self._error


def test_actors_are_ended_whatever_happens(config: Config) -> None:
    with pytest.raises(KeyboardInterrupt):
        Run(config, FailingActors(KeyboardInterrupt()), slots=2).work()  # which asserts it


def test_what_is_committed_is_checkpointed_now_and_then(config: Config) -> None:
    often = partial(OutputSync, look_seconds=0.0, checkpoint_seconds=0.0, executor=AtOnce())
    before = PartitionRecord(start=0, stop=10, fingerprint="f", run=1, size=1)
    run = Run(config, ScriptedActors(WORKING), slots=1, records=[before], output=often)
    run.work()
    checkpointed = run.manifest()
    assert before in checkpointed
    last = run.shown.snapshots[-1]
    assert (last.rows, last.rows_this_run) == (100, 90)


class InterruptedFarewell(ScriptedActors):
    """Somebody presses Ctrl-C while the idle actors end."""

    def finish(self, slot: int) -> None:
        raise KeyboardInterrupt


def test_a_job_that_is_interrupted_after_its_last_row_leaves_a_checkpoint(config: Config) -> None:
    run = Run(config, InterruptedFarewell(WORKING), slots=1)
    with pytest.raises(KeyboardInterrupt):
        run.work()
    assert sum(record.rows for record in run.manifest()) == 100


PAUSE = progress()  # in the place of which nothing is told
PLACED = Placed(node_id="n", host="h", pid=1, log_path="")


def placed_on(node: str) -> Placed:
    return Placed(node_id=node, host=f"host-{node}", pid=1, log_path="")


def test_what_fails_on_a_broken_node_is_done_on_another_and_the_node_is_named_and_avoided(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Script([placed_on("bad"), READY, progress(), lost("illegal memory access")], works=False)
    slow = Script([placed_on("good"), READY, *[progress()] * 100], doing="nothing")
    actors = ScriptedActors(broken, slow, broken, broken, present=["bad", "good"])
    run = Run(make_config(tmp_path), actors, slots=2)
    run.work()
    assert run.shown.snapshots[-1].rows == 100
    assert actors.avoided[:4] == [frozenset(), frozenset(), frozenset(), {"bad"}]
    named = "node host-bad (bad) has failed 2 times: no actor starts there for"
    assert any(named in message and "illegal memory access" in message for message in caplog.messages)
    assert any(snapshot.nodes_left_alone == ("host-bad",) for snapshot in run.shown.snapshots)
    [node] = run.history.record().failed_nodes
    assert (node.host, node.failures, node.pauses) == ("host-bad", 2, 1)


def test_an_actor_that_finds_no_place_elsewhere_is_asked_for_again_when_the_node_may_be_tried(
    tmp_path: Path,
) -> None:
    broken = Script([placed_on("bad"), lost("no CUDA")], works=False)
    busy = Script([placed_on("good"), READY, *[progress(doing="storing")] * 200], doing="nothing")
    waits = Script(works=False, speaks=False)
    actors = ScriptedActors(broken, busy, broken, waits, present=["bad", "good"])
    run = Run(make_config(tmp_path), actors, slots=2)
    run.work()
    assert actors.starts[:5] == [0, 1, 0, 0, 0]
    assert actors.avoided[3:5] == [{"bad"}, frozenset()]
    assert actors.started_at[4] - actors.started_at[3] > 30
    lives = [life for life in run.history.record().lives if life.slot == 0]
    assert len(lives) == 3, "it is one actor that waits, wherever it may go"
    assert all(life.end for life in lives)


def test_an_actor_that_has_just_got_a_place_on_a_node_that_is_left_alone_moves_on(tmp_path: Path) -> None:
    broken = Script([placed_on("bad"), lost("no CUDA")], works=False)
    waits = Script([placed_on("bad"), *[PAUSE] * 90, READY], works=False, speaks=False)

    class Waiting(ScriptedActors):
        """The first actor gets its place, the one that became free, after two others have failed there."""

        def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
            told = super().poll(timeout_seconds)
            return [(slot, event) for slot, event in told if event is not PAUSE]

    late = Script([*[PAUSE] * 3, *waits.told], works=False, speaks=False)
    actors = Waiting(late, broken, broken, WORKING, present=["bad", "good"])
    run = Run(make_config(tmp_path), actors, slots=3)
    run.work()
    assert actors.starts[:4] == [0, 1, 2, 0]
    assert actors.avoided[3] == {"bad"}
    [first, *others] = [life for life in run.history.record().lives if life.slot == 0]
    assert not others, "it is one actor, on another node"
    assert first.end == "ended"


def test_an_actor_whose_process_never_starts_is_asked_for_again(tmp_path: Path) -> None:
    busy = Script([placed_on("good"), READY, *[progress(doing="storing")] * 200], doing="nothing")
    actors = ScriptedActors(SILENT, busy, WORKING, present=["bad", "good"])
    Run(make_config(tmp_path, "cluster.start_timeout_seconds=60"), actors, slots=2).work()
    assert actors.starts[:3] == [0, 1, 0]
    assert 60 < actors.started_at[2] - actors.started_at[0] < 70


def test_a_node_on_which_no_process_comes_up_is_avoided_too(tmp_path: Path) -> None:
    dead = Lost(cause="no such runtime environment", loss=Loss.FAILED, node_id="bad", host="10.0.0.7")
    never = Script([dead], works=False)
    actors = ScriptedActors(never, never, WORKING, present=["bad", "good"])
    run = Run(make_config(tmp_path), actors, slots=1)
    run.work()
    assert actors.avoided == [frozenset(), frozenset(), {"bad"}]
    assert [node.host for node in run.history.record().failed_nodes] == ["10.0.0.7"]


def test_failed_starts_are_not_repeated_at_once(tmp_path: Path) -> None:
    never = Script([placed_on("box"), lost("no CUDA")], works=False)
    actors = ScriptedActors(never, present=["box"])
    with pytest.raises(GenerationFailedError, match=r"every start failed.*3 times on host-box: no CUDA"):
        Run(make_config(tmp_path), actors, slots=1).work()
    first, second, third = actors.started_at
    assert second - first > 7
    assert third - second > 22


def test_a_store_that_one_node_can_not_reach_is_no_fault_of_the_partitions_it_had(config: Config) -> None:
    refused = StorageError("Could not create part-0: 403")
    fails = Script([READY, progress(), lost(str(refused), error=refused)], works=False)
    actors = ScriptedActors(*[fails] * 6, WORKING)
    run = Run(config, actors, slots=1)
    run.work()
    assert run.shown.snapshots[-1].rows == 100


def test_of_many_actors_the_first_start_at_once_and_the_others_soon(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    actors = ScriptedActors(Script([READY, *[progress(doing="storing")] * 100], doing="nothing"))
    run = Run(make_config(tmp_path, "num_rows=1000"), actors, slots=40)
    run.work()
    assert actors.started_at[:16] == [0.0] * 16
    assert 5 < actors.started_at[39] < 20
    assert any("40 actors start within 12 s" in message for message in caplog.messages)


def test_a_worker_that_does_nothing_with_what_it_was_given_is_replaced(tmp_path: Path) -> None:
    deaf = Script([READY], works=False, doing="nothing")
    actors = ScriptedActors(deaf, WORKING, poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.stall_timeout_seconds=20"), actors, slots=1).work()
    assert actors.starts == [0, 0]


def test_an_engine_that_does_not_come_up_on_its_node_is_replaced_though_others_are_up(tmp_path: Path) -> None:
    hangs = Script([PLACED], works=False, speaks=False)
    takes_its_time = Script([READY, *[progress(doing="storing")] * 10], doing="nothing")
    actors = ScriptedActors(hangs, takes_its_time, WORKING, poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.start_timeout_seconds=20"), actors, slots=2).work()
    assert actors.starts == [0, 1, 0]


def test_an_engine_that_is_loading_is_waited_for_where_none_is_up(tmp_path: Path) -> None:
    class Late(ScriptedActors):
        polls = 0

        def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
            self.polls += 1
            return super().poll(timeout_seconds) if self.polls in (1, 8) or self.polls > 8 else []

    actors = Late(Script([PLACED, READY], doing="nothing"), poll_seconds=5.0)
    Run(make_config(tmp_path, "cluster.start_timeout_seconds=40"), actors, slots=1).work()
    assert actors.starts == [0]


def test_room_that_comes_while_the_job_runs_is_used(tmp_path: Path) -> None:
    actors = ScriptedActors(WORKING, capacity=3, poll_seconds=6.0)
    run = Run(make_config(tmp_path), actors, slots=1)
    run.work()
    assert actors.starts == [0, 1, 2]
    assert run.shown.snapshots[-1].actors_wanted == 3


def test_room_for_more_actors_than_partitions_is_left_alone(tmp_path: Path) -> None:
    actors = ScriptedActors(WORKING, capacity=100, poll_seconds=6.0)
    Run(make_config(tmp_path), actors, slots=1).work()
    assert len(actors.starts) <= 100 // GRID


def test_an_actor_on_a_node_that_is_about_to_leave_is_told_to_stop_once_and_replaced(tmp_path: Path) -> None:
    class Slow(ScriptedActors):
        def stop(self, slot: int) -> None:
            self.orders.append(("stop", slot))
            told = [progress()] * 5 + [Left()]
            self.running[slot] = Script(deque(told), works=False)
            self.leaving = self.leaving if len(self.orders) > 1 else [0]

        def start(self, slot: int, *, engine_start: int, avoid: frozenset[str] = frozenset()) -> None:
            super().start(slot, engine_start=engine_start, avoid=avoid)
            self.leaving = [0] if engine_start == 0 else []

    actors = Slow(Script([READY], works=False), WORKING, poll_seconds=6.0)
    run = Run(make_config(tmp_path), actors, slots=1)
    run.work()
    assert actors.orders == [("stop", 0), ("finish", 0)]
    assert actors.starts == [0, 0]


def test_actors_that_leave_on_notice_again_and_again_are_nobodys_fault(config: Config) -> None:
    preempted = Script([READY, progress(), Left()], works=False)
    actors = ScriptedActors(*[preempted] * 20, WORKING)
    Run(config, actors, slots=1).work()
    assert len(actors.starts) == 21


def test_what_another_driver_commits_meanwhile_is_not_done_again(config: Config) -> None:
    theirs = [
        PartitionRecord(start=n, stop=n + GRID, fingerprint="f", run=2, size=1) for n in range(0, 90, GRID)
    ]
    actors = ScriptedActors(Script([READY, *[progress()] * 3], works=False), WORKING)
    run = Run(config, actors, slots=1, output=partial(Found, polls=[[], [], theirs]))
    with pytest.raises(InterruptedJobError):
        run.work(lambda: len(run.shown.snapshots) > 5)
    assert actors.dropped == [record.partition for record in theirs[:2]]
    assert run.job.snapshot().actors_up == 1


class FullStorage(Storage):
    """Takes nothing any more."""

    def probe(self) -> bool:
        raise PreflightError("The output can't be used: no space left")


def test_an_output_that_nobody_can_use_any_more_ends_the_job_with_its_cause(config: Config) -> None:
    full = StorageError("Could not create part-0: OSError: no space left. Free some space")
    actors = ScriptedActors(Script([READY, lost(str(full), error=full)]), WORKING)
    run = Run(config, actors, slots=2, storage=FullStorage(config.output.path))
    with pytest.raises(GenerationFailedError, match=r"no space left.*Free some space.*same command"):
        run.work()


def test_an_output_without_room_for_a_file_ends_the_job_though_there_is_room_for_a_trial(
    config: Config,
) -> None:
    full = NoRoomError("Could not create part-0: no space left. Free some space")
    actors = ScriptedActors(Script([READY, lost(str(full), error=full)]), WORKING)
    with pytest.raises(GenerationFailedError, match=r"no room any more.*Free some space.*rows are kept"):
        Run(config, actors, slots=2).work()


class OutStorage(Storage):
    """Does not answer for now."""

    def probe(self) -> bool:
        raise PreflightError("The output can't be used.") from ConnectionResetError("reset")


@pytest.mark.parametrize(("kind", "blamed"), [(Storage, True), (OutStorage, False)])
def test_a_node_is_blamed_for_trouble_with_the_store_only_where_the_driver_has_none(
    config: Config, kind: type[Storage], blamed: bool
) -> None:
    gone = StorageError("Could not create part-0: no answer")
    fails = Script([placed_on("far"), READY, progress(), lost(str(gone), error=gone)], works=False)
    works = Script([placed_on("near"), READY], doing="nothing")
    actors = ScriptedActors(fails, fails, works, present=["far", "near"])
    Run(config, actors, slots=1, storage=kind(config.output.path)).work()
    assert actors.avoided[2] == ({"far"} if blamed else frozenset())


def test_storage_trouble_of_one_actor_alone_is_the_loss_of_that_actor(config: Config) -> None:
    refused = StorageError("Could not create part-0: 403")
    actors = ScriptedActors(Script([READY, lost(str(refused), error=refused)]), WORKING)
    run = Run(config, actors, slots=1)
    run.work()
    assert actors.starts == [0, 0]


def test_a_cluster_that_is_gone_ends_the_job_at_once(config: Config) -> None:
    actors = FailingActors(ClusterLostError("the head is gone"))
    with pytest.raises(ClusterLostError):
        Run(config, actors, slots=2).work()
    assert not actors.orders


class LeavingHead(ScriptedActors):
    """The cluster is lost once a worker has had a last order."""

    def poll(self, timeout_seconds: float) -> list[tuple[int, Told]]:
        if self.orders:
            raise ClusterLostError("the head is gone")
        return super().poll(timeout_seconds)


def test_a_cluster_that_is_lost_when_all_is_done_changes_nothing(config: Config) -> None:
    actors = LeavingHead(WORKING)
    Run(config, actors, slots=1).work()
    assert actors.orders == [("finish", 0)]


def test_a_cluster_that_is_lost_after_a_stop_does_not_make_it_a_failure(config: Config) -> None:
    run = Run(config, LeavingHead(Script([READY], works=False)), slots=1)
    with pytest.raises(InterruptedJobError):
        run.work(lambda: any(snapshot.actors_up for snapshot in run.shown.snapshots))


def test_a_cluster_that_is_lost_after_a_failure_does_not_hide_it(config: Config) -> None:
    exhausted = RowExhaustedError("row 3")
    fails = Script([READY, progress(), lost("row 3", error=exhausted)])
    with pytest.raises(RowExhaustedError):
        Run(config, LeavingHead(fails, Script([READY], works=False)), slots=2).work()


def test_a_visit_under_way_is_waited_for_longer_when_all_is_done_than_when_the_job_is_stopped(
    config: Config,
) -> None:
    made: list[Closed] = []

    def output(*args: Any, **settings: Any) -> Closed:
        made.append(Closed(*args, **settings))
        return made[-1]

    Run(config, ScriptedActors(WORKING), slots=1, output=output).work()
    with pytest.raises(InterruptedJobError):
        Run(config, ScriptedActors(SILENT), slots=1, output=output).work(lambda: True)
    done, stopped = made
    assert (done.waited, stopped.waited) == (60.0, 5.0)
