"""The commit, resume and dispatch protocol as a whole, under any order of events and faults.

Several drivers work on one output. Their parts are the real ones (build, manifest, plan, dispatch, ledger,
the worker's committer, Parquet files in a storage), except for what takes time: an engine is a
list of rows, uploads and the ledger's visits are done when a rule says so, and nobody has a thread.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from magpie_ray.config.schema import Config
from magpie_ray.coordinator import run
from magpie_ray.coordinator.actors import Loss
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.layout import MANIFEST_KEY
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildMismatchError, GenerationFailedError, InterruptedJobError, MagpieError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.existing import read_existing
from magpie_ray.preflight.target import CommittedBuild, check_existing
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, Partition
from magpie_ray.worker.committer import Committer
from magpie_ray.worker.events import Committed
from magpie_ray.worker.spec import WorkerSpec
from tests.support.builds import build_of, config_of, memory_storage, row_of


@pytest.fixture(autouse=True)
def without_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second each, and the protocol is not theirs."""
    monkeypatch.setattr(run, "write_report", lambda *_: None)


MOST_DRIVERS = 3


class Serially:
    """In place of a DaemonExecutor: what it would start threads for takes less than that here."""

    def __init__(self, threads: int) -> None:
        self.map = map

    def __enter__(self) -> "Serially":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def quick_and_quiet(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged and late checkpoints are told a thousand times."""
    monkeypatch.setattr(manifest, "DaemonExecutor", Serially)
    caplog.set_level(logging.CRITICAL, "magpie_ray")


class RacyStorage(Storage):
    """Before the next creations of files the rivals have their turns, one each; answers may be lost."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.rivals = deque[Callable[[], object]]()
        self.loses_answer = False

    def create(self, key: str, data: bytes) -> None:
        if key.startswith(DATA_PREFIX) and self.rivals:
            self.rivals.popleft()()
        super().create(key, data)
        if self.loses_answer:
            self.loses_answer = False
            super().create(key, data)  # as the client does that got no answer


class Later:
    """An executor whose tasks are done when they are told to be."""

    def __init__(self) -> None:
        self.tasks = deque[tuple[Future[Any], Callable[[], Any]]]()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        self.tasks.append((future, partial(function, *args, **kwargs)))
        return future

    def run_one(self, index: int = 0) -> None:
        future, task = self.tasks[index]
        del self.tasks[index]
        try:
            future.set_result(task())
        except MagpieError as exc:
            future.set_exception(exc)

    def run_all(self) -> None:
        while self.tasks:
            self.run_one()

    def shutdown(self, wait: bool) -> None:
        """As far as its caller waits for it: not at all."""


class Worker:
    """A worker's real committer; its engine is lists of rows."""

    def __init__(self, spec: WorkerSpec, *, window: int) -> None:
        self.name = f"run {spec.run}, engine {spec.engine_start}"
        self.uploader: Any = Later()
        self.committer = Committer(spec, self.uploader)
        self.backlog: list[int] = []  # rows that have not begun
        self.open: list[int] = []  # rows that are not finished
        self.orders: list[tuple[str, Partition]] = []
        self.window, self.received = window, 0

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def give(self, partition: Partition) -> None:
        self.orders.append(("give", partition))

    def drop(self, partition: Partition) -> None:
        self.orders.append(("drop", partition))

    def take_orders(self) -> None:
        for order, partition in self.orders:
            rows = range(partition.start, partition.stop)
            if order == "give":
                self.committer.open(partition)
                self.received += partition.num_rows
                self.backlog += rows
                self.open += rows
            elif self.committer.drop(partition):
                self.backlog = [row for row in self.backlog if row not in rows]
                self.open = [row for row in self.open if row not in rows]
        self.orders.clear()

    def unfinished(self) -> list[int]:
        self.take_orders()
        return self.open

    def begin(self, number: int) -> None:
        self.take_orders()
        del self.backlog[:number]

    def finish(self, rows: list[int]) -> None:
        """Each worker writes other rows, as engines do."""
        self.backlog = [row for row in self.backlog if row not in rows]
        self.open = [row for row in self.open if row not in rows]
        self.committer.book([row_of(row, (f"Why {row}?", self.name)) for row in rows])

    def leave(self) -> None:
        """On notice, or because the engine fails: heads are committed."""
        self.take_orders()
        self.open.clear()
        self.committer.commit_heads()
        self.uploader.run_all()


class Driver:
    """A run of `generate` from the moment when it has looked at what is there."""

    def __init__(self, config: Config, storage: Storage, found: CommittedBuild) -> None:
        self.config, self.storage, self.build, self.found = config, storage, found.build, found
        self.run: RunRecord | None = None

    def __repr__(self) -> str:
        return f"<driver of {self.config.num_rows} rows, run {self.run.number if self.run else None}>"

    def begin(self, *, slots: int, window: int) -> None:
        self.run = run_records.start_run(self.storage, num_rows=self.config.num_rows, host="here", config={})
        manifest.mark_growing(self.storage)
        pending = self.found.pending
        self.dispatcher = Dispatcher(
            pending,
            num_slots=min(slots, len(pending)),
            grid=self.build.rows_per_partition,
            max_failures_per_partition=3,
            backwards=run_records.is_second(self.storage, self.run),
        )
        self.ledger = Ledger(self.found.records)
        self.visitor: Any = Later()
        self.clock = 0.0
        self.output = OutputSync(
            self.storage,
            self.build,
            self.ledger,
            num_rows=self.config.num_rows,
            look_seconds=0.0,
            look_share=0.0,
            checkpoint_seconds=1.0,
            clock=lambda: self.clock,
            executor=self.visitor,
        )
        self.window, self.starts = window, 0
        self.workers: dict[int, Worker] = {}
        for slot in range(self.dispatcher.num_slots):
            self.start(slot)

    @property
    def number(self) -> int:
        assert self.run is not None, "it has not begun"
        return self.run.number

    def start(self, slot: int) -> None:
        unused: Any = None
        spec = WorkerSpec(
            build_spec=BuildSpec(
                config=self.config, model=unused, chat_format=unused, prompts=(), warnings=()
            ),
            storage=self.storage,
            fingerprint=self.build.fingerprint,
            run=self.number,
            engine_start=self.starts,
            device="cpu",
        )
        self.starts += 1
        self.workers[slot] = Worker(spec, window=self.window)

    def hear_progress(self, slot: int, now: float) -> None:
        worker = self.workers[slot]
        worker.take_orders()
        for partition in self.dispatcher.progress(
            slot,
            started=worker.received - len(worker.backlog),
            finished=worker.committer.tally.rows,
            live_window=worker.window,
            now=now,
        ):
            worker.give(partition)

    def hear_commits(self, slot: int, *, times: int = 1) -> int:
        events = list(self.workers[slot].committer.ended_uploads())
        for event in events * times:
            self.hear_commit(slot, event)
        return len(events)

    def hear_commit(self, slot: int, event: Committed) -> None:
        for record in event.files:
            self.ledger.note(record)
        files = [record.partition for record in event.files]
        for holder in self.dispatcher.committed(slot, event.partition, files):
            self.workers[holder].drop(event.partition)

    def lose(self, slot: int, loss: Loss) -> None:
        """GenerationFailedError when it gives up."""
        del self.workers[slot]
        self.dispatcher.lost(slot, cause="bad luck", loss=loss)
        if self.dispatcher.num_pending:
            self.start(slot)

    def look_around(self, *, checkpoint: bool) -> None:
        """Take what the last visit has found, and begin another one."""
        if checkpoint:
            self.clock += 1.0
        for slot, dropped in self.dispatcher.found([record.partition for record in self.output.poll()]):
            self.workers[slot].drop(dropped)

    def end(self, error: MagpieError | None = None) -> None:
        """The last words. The last checkpoint comes when it comes, perhaps after them."""
        self.output.close(0.0)
        assert self.run is not None
        job: Any = EndedJob(error, self.ledger)
        if error is None:
            run.carry_out(lambda: job, self.run, self.storage, self.build, lambda: False)
        else:
            with pytest.raises(type(error)):
                run.carry_out(lambda: job, self.run, self.storage, self.build, lambda: False)


class EndedJob:
    """A job whose work is done, or ends in an error."""

    def __init__(self, error: MagpieError | None, ledger: Ledger) -> None:
        self._error, self.ledger = error, ledger

    def work(self, *_: object) -> None:
        if self._error:
            raise self._error

    def snapshot(self) -> object:
        return SimpleNamespace(seconds=0.0, engines=EngineStats())


class Protocol(RuleBasedStateMachine):
    """`most`: rows that the greediest run was asked for."""

    @initialize(rng=st.randoms(use_true_random=True), grid=st.integers(1, 8))
    def an_output_is_chosen(self, rng: Random, grid: int) -> None:
        """What happens inside a rule is drawn evenly: Hypothesis is left the rules, and their order."""
        self.rng = rng
        self.storage = RacyStorage(memory_storage().url)
        self.record = build_of(grid)
        self.looking: list[Driver] = []
        self.drivers: list[Driver] = []
        self.strays: list[Later] = []  # of drivers that have ended: their last checkpoints
        self.seen: dict[str, tuple[bytes, list[int]]] = {}
        self.checked = True
        self.damaged = True  # there is no checkpoint that could be
        self.came = self.ended = 0  # files that there were then
        self.most, self.now = 0, 0.0
        for more in [self.rng.randint(4, 24) for _ in range(self.rng.randint(1, MOST_DRIVERS))]:
            self.a_driver_comes(more, at_once=True)

    # Drivers come and go.

    def look(self, num_rows: int) -> Driver | None:
        """What `generate` does before a cluster is touched, and at once where nothing is to be done."""
        config = config_of(num_rows=num_rows)
        build_spec: Any = SimpleNamespace(
            config=config, inputs=None, source=None, record=lambda grid: build_of(grid, config)
        )
        existing = read_existing(self.storage)
        if existing is None:
            existing = build_record.open_build(self.storage, build_of(self.record.rows_per_partition, config))
        found = check_existing(build_spec, existing, self.storage)
        if found.pending:
            return Driver(config, self.storage, found)
        self.checking_the_mark(lambda: run.nothing_to_do(build_spec, self.storage, found))
        return None

    @precondition(
        lambda self: not self.drivers or (len(self.drivers) < MOST_DRIVERS and self.came < len(self.seen))
    )
    @rule(more=st.integers(-1, 20), at_once=st.booleans())
    def a_driver_comes(self, more: int, at_once: bool) -> None:
        """It looks and begins; or one begins that has looked a while ago."""
        at_once |= not self.drivers
        if not at_once and len(self.drivers) + len(self.looking) == MOST_DRIVERS:
            self.begin(self.looking.pop(0))
            return
        self.came = len(self.seen)
        committed = max(self.rows(), default=-1) + 1
        num_rows = max(1, committed + more)
        if num_rows < committed:
            with pytest.raises(BuildMismatchError, match="num_rows"):
                self.look(num_rows)
        elif (driver := self.look(num_rows)) and at_once:
            self.begin(driver)
        elif driver:
            self.looking.append(driver)
        with pytest.raises(BuildMismatchError, match="rows_per_partition"):
            build_record.open_build(self.storage, build_of(self.record.rows_per_partition + 1))

    def begin(self, driver: Driver) -> None:
        """What it has seen of the output may be old by now."""
        driver.begin(slots=self.rng.randint(1, 3), window=self.rng.randint(1, 8))
        self.most = max(self.most, driver.config.num_rows)
        self.drivers.append(driver)

    def end(self, driver: Driver, error: MagpieError | None = None) -> None:
        self.drivers.remove(driver)
        self.strays.append(driver.visitor)
        self.checking_the_mark(lambda: driver.end(error))

    def checking_the_mark(self, act: Callable[[], object]) -> None:
        """Whoever writes _SUCCESS writes it over a complete build, and leaves it to larger runs at work.

        None of them has been silent for so long that it counts as dead.
        """
        before = manifest.is_marked_complete(self.storage)
        self.damaged = False
        act()
        if manifest.is_marked_complete(self.storage) and not before:
            rows = self.rows()
            assert sorted(rows) == list(range(len(rows)))
            assert [driver for driver in self.drivers if driver.config.num_rows > len(rows)] == []

    @precondition(lambda self: self.drivers and self.ended < len(self.seen))
    @rule(killed=st.booleans())
    def a_driver_is_stopped_or_killed(self, killed: bool) -> None:
        """With all its workers, which are killed too, or commit their heads."""
        self.workers_go_on()
        self.ended = len(self.seen)
        if not self.drivers:
            return
        driver = self.rng.choice(self.drivers)
        if killed:
            self.drivers.remove(driver)
            return
        for slot, worker in driver.workers.items():
            driver.hear_progress(slot, self.now)
            self.leave(worker)
            driver.hear_commits(slot)
        self.end(driver, InterruptedJobError("SIGTERM"))
        self.others_may_see_it()

    # Workers.

    def pick(self) -> tuple[Driver, int, Worker]:
        driver = self.rng.choice([driver for driver in self.drivers if driver.workers])
        slot = self.rng.choice(sorted(driver.workers))
        return driver, slot, driver.workers[slot]

    def some_work(self) -> bool:
        return any(driver.workers for driver in self.drivers)

    @precondition(some_work)
    @rule()
    def workers_go_on(self) -> None:
        """Also before each fault: most rules bring one, and there must be something to lose."""
        for driver in [driver for driver in self.drivers if driver.dispatcher.done]:
            self.end(driver)
        for _ in range(self.rng.randint(0, 6) if self.some_work() else 0):
            driver, slot, worker = self.pick()
            if self.rng.randint(0, 9):
                self.go_on(driver, slot, worker)
            else:
                self.work(driver)

    def go_on(self, driver: Driver, slot: int, worker: Worker) -> None:
        """It reports, finishes rows, uploads files and tells of them; it may be slow with any of that."""
        self.now += self.rng.choice([1.0, 10.0, 100.0])
        steps = self.rng.randint(1, 6)
        worker.begin(self.rng.randint(0, len(worker.backlog)))
        driver.hear_progress(slot, self.now)
        if steps > 1 and (rows := worker.unfinished()):
            head = rows[: self.rng.randint(1, len(rows))]
            worker.finish(head if self.rng.random() < 0.5 else self.rng.sample(rows, len(rows))[: len(head)])
        if steps > 2 and worker.uploader.tasks:
            self.upload(worker)
        if steps > 3:
            driver.hear_commits(slot, times=self.rng.choice([1, 1, 2]))

    def upload(self, worker: Worker) -> None:
        """One of its files, perhaps while others upload theirs, and perhaps the answer is lost."""
        others = [
            other for driver in self.drivers for other in driver.workers.values() if other is not worker
        ]
        rivals = [other.uploader for other in others if other.uploader.tasks]
        if rivals and self.rng.random() < 0.5:
            self.storage.rivals.extend(rival.run_one for rival in self.rng.sample(rivals, len(rivals)))
        self.storage.loses_answer = self.rng.random() < 0.5
        worker.uploader.run_one(self.rng.randint(0, len(worker.uploader.tasks) - 1))
        self.storage.rivals.clear()
        self.storage.loses_answer = False

    @precondition(lambda self: self.drivers)
    @rule(smallest=st.booleans())
    def a_driver_works_to_its_end(self, smallest: bool) -> None:
        """What a smaller run leaves behind must not harm a larger one."""
        self.workers_go_on()
        if not self.drivers:
            return
        by_size = sorted(self.drivers, key=lambda driver: driver.config.num_rows)
        driver = by_size[0] if smallest else self.rng.choice(by_size)
        while not driver.dispatcher.done:
            assert self.work(driver), "what is left is given to nobody"
        self.end(driver)

    def work(self, driver: Driver) -> bool:
        """Every worker reports, finishes all it has, uploads it and tells; whether anything came of it."""
        moved = False
        self.now += 10.0
        for slot, worker in driver.workers.items():
            driver.hear_progress(slot, self.now)
            worker.finish(worker.unfinished())
            worker.uploader.run_all()
            moved |= driver.hear_commits(slot) > 0
        return moved

    @precondition(some_work)
    @rule(loss=st.sampled_from(Loss), heard=st.booleans())
    def a_worker_is_lost(self, loss: Loss, heard: bool) -> None:
        """One that dies without a word takes what waits for its upload with it; others commit their heads.

        What has been uploaded stays, though it may be that nobody hears of it.
        """
        self.workers_go_on()
        if not self.some_work():
            return
        driver, slot, worker = self.pick()
        driver.hear_progress(slot, self.now)
        if loss is not Loss.DIED:
            self.leave(worker)
        if heard:
            driver.hear_commits(slot)
        try:
            driver.lose(slot, loss)
        except GenerationFailedError as exc:
            self.end(driver, exc)
        self.others_may_see_it()

    def leave(self, worker: Worker) -> None:
        """With what it has finished until then."""
        if rows := worker.unfinished():
            worker.finish(rows[: self.rng.randint(0, len(rows))])
        worker.leave()

    # What is known of the output.

    @precondition(lambda self: self.drivers)
    @rule(late=st.booleans())
    def drivers_look_around(self, late: bool) -> None:
        """Late: when a visit ends, and writes its checkpoint, is for another rule to say."""
        self.workers_go_on()
        for driver in self.rng.sample(self.drivers, self.rng.randint(0, len(self.drivers))):
            driver.look_around(checkpoint=late)
            if not late:
                driver.visitor.run_all()
                driver.look_around(checkpoint=False)

    def others_may_see_it(self) -> None:
        """Heads of partitions, which are open elsewhere perhaps."""
        if self.drivers and self.rng.random() < 0.5:
            self.drivers_look_around(late=False)

    def visitors(self) -> list[Later]:
        every = [driver.visitor for driver in self.drivers] + self.strays
        return [visitor for visitor in every if visitor.tasks]

    @precondition(lambda self: self.visitors() or not self.damaged)
    @rule(raw=st.sampled_from([None, b"", b'{"partitions": 1}']))
    def a_checkpoint_comes_late_or_is_damaged(self, raw: bytes | None) -> None:
        """Late: over a newer one, or over that of another driver, or after the last words of its own."""
        if visitors := self.visitors():
            self.rng.choice(visitors).run_one()
            self.damaged = False
        elif raw is None:
            self.damaged = True
            self.storage.delete(MANIFEST_KEY)
        else:
            self.damaged = True
            self.storage.replace(MANIFEST_KEY, raw)

    # What always holds.

    def rows(self) -> list[int]:
        """As readers see them: what stands in the files."""
        for item in self.storage.list_objects(DATA_PREFIX):
            if item.key not in self.seen:
                data = self.storage.read(item.key)
                table = pq.read_table(pa.BufferReader(data), columns=["row_id"])
                self.seen[item.key] = (data, table.column("row_id").to_pylist())
                self.checked = False
        return [row for _, rows in self.seen.values() for row in rows]

    @invariant()
    def readers_see_no_row_twice_and_none_that_nobody_asked_for(self) -> None:
        rows = self.rows()
        assert [row for row, times in Counter(rows).items() if times > 1] == []
        assert all(0 <= row < self.most for row in rows)

    @invariant()
    def files_chain_inside_their_cells(self) -> None:
        grid, committed = self.record.rows_per_partition, set(self.rows())
        if not self.checked:
            for _, rows in self.seen.values():
                assert rows == list(range(rows[0], rows[-1] + 1))
                assert rows[0] // grid == rows[-1] // grid
                assert rows[0] % grid == 0 or rows[0] - 1 in committed
            records = manifest.read_committed(self.storage, self.record)
            assert manifest.chain_problems(records, self.record) == []
            assert [record.start for record in records] == sorted(rows[0] for _, rows in self.seen.values())
        self.checked = True

    @invariant()
    def a_build_that_is_marked_complete_has_no_hole(self) -> None:
        if manifest.is_marked_complete(self.storage):
            assert sorted(self.rows()) == list(range(len(self.rows())))

    def teardown(self) -> None:
        """All die, and one last driver is started with as many rows as the greediest of them."""
        if not hasattr(self, "storage"):
            return
        self.drivers.clear()
        self.most = max(self.most, 1)
        if driver := self.look(self.most):
            driver.begin(slots=2, window=4)
            while not driver.dispatcher.done:
                assert self.work(driver), "what is left is given to nobody"
            self.drivers.append(driver)
            self.end(driver)
        assert sorted(self.rows()) == list(range(self.most))
        assert {item.key for item in self.storage.list_objects(DATA_PREFIX)} == self.seen.keys(), (
            "a file has gone"
        )
        assert all(self.storage.read(key) == data for key, (data, _) in self.seen.items()), "one has changed"
        assert verify(self.storage).problems == ()
        before = {item.key: self.storage.read(item.key) for item in self.storage.list_objects("")}
        assert self.look(self.most) is None
        assert {item.key: self.storage.read(item.key) for item in self.storage.list_objects("")} == before
        for key in before:
            self.storage.delete(key)


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(max_examples=20, stateful_step_count=40, derandomize=True, deadline=None)
