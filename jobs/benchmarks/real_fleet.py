"""Real Ray actors with simulated engines of a fixed speed, on this machine, under the real driver.

All parts are those of a job (RayActors, ShardProcess, Rounds, Parquet on a local disk) with two exceptions:
an engine sleeps while a GPU would compute, and the actors' tokenizer is a stand-in. Loading a real tokenizer
imports transformers and torch, 4 s of CPU and 300 MB in each of a hundred actors on this machine.
"""

import logging
import os
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import ray

from magpie_ray.config.loading import load_config
from magpie_ray.coordinator.actors import Left, Lost
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import progress_seconds
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.placement import Placement
from magpie_ray.counters import EngineStats
from magpie_ray.dataset import build_record, partitioning, run_records
from magpie_ray.driver.actor_process import ShardProcess
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.engine.protocol import Completion, EngineFigures, Request
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.errors import InterruptedJobError
from magpie_ray.generation.recipe import Recipe
from magpie_ray.preflight import checks
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.target import find_output
from magpie_ray.worker.events import Event, Progress, Ready
from magpie_ray.worker.parts import make_recipe
from magpie_ray.worker.spec import EngineStart, WorkerSpec

SLOTS = 16
STEP_SECONDS = 0.5
_FIGURES = EngineFigures(max_num_seqs=SLOTS, kv_cache_tokens=100_000, max_model_len=2048)
_USER_TOKENS, _ASSISTANT_TOKENS = (2, 6), (4, 16)
_VOCABULARY = 128
# Three quarters of a minute: reports and commits come in about the proportion of 1,000 actors and five
# minutes.
_ROWS_PER_PARTITION = 120
_START_SECONDS, _SETTLE_SECONDS = 150.0, 4.0


@dataclass(frozen=True)
class FixedSpeed:
    """An engine factory: SLOTS tokens each STEP_SECONDS by the clock, however busy the machine is."""

    def __call__(self, spec: WorkerSpec) -> "FixedSpeedEngine":
        return FixedSpeedEngine(self.replies(spec), figures=_FIGURES)

    def replies(self, spec: WorkerSpec) -> Callable[[Request], Answer]:
        """What the engine writes: drawn ids, short user messages and longer answers."""
        draw = random.Random(spec.engine_seed)

        def respond(request: Request) -> Answer:
            shortest, longest = _USER_TOKENS if request.sampling.settings.temperature else _ASSISTANT_TOKENS
            return draw.choices(range(_VOCABULARY), k=draw.randint(shortest, longest)), "stop"

        return respond


class FixedSpeedEngine(SimulatedEngine):
    """Ends its steps when an engine of that speed would, and makes up for late ones."""

    _due = 0.0

    def step(self) -> list[Completion]:
        now = time.monotonic()
        # The time of an idle engine is lost, as on a GPU.
        self._due = max(self._due, now - STEP_SECONDS) + STEP_SECONDS
        time.sleep(max(0.0, self._due - now))
        return super().step()


class IdsAsText:
    """A tokenizer whose texts are the token ids, as far as a recipe asks one."""

    all_special_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return _VOCABULARY

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split() if word.isdecimal()]}

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return " ".join(map(str, ids))

    def batch_decode(self, messages: Sequence[Sequence[int]], **_: object) -> list[str]:
        return [self.decode(ids) for ids in messages]

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        return [str(token_id) for token_id in ids]


class BareProcess(ShardProcess):
    """An actor whose text is made of token ids, without transformers."""

    def make_recipe(self, spec: WorkerSpec) -> Recipe:
        return make_recipe(spec, IdsAsText())


@contextmanager
def own_ray() -> Iterator[None]:
    """A Ray of its own on this machine; its actors import what this process can."""
    os.environ.update({"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"})
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        object_store_memory=200 << 20,
        # With two cores under a hundred processes one may well take minutes to come up.
        _system_config={"worker_register_timeout_seconds": 300},
    )
    try:
        yield
    finally:
        ray.shutdown()


@dataclass(slots=True)
class Heard:
    """The events that the driver heard. Seconds of this machine's monotonic clock.

    stats: by slot, the time, the engine's stats and the finished rows of each report.
    """

    begun: float = field(default_factory=time.monotonic)
    ready: dict[int, float] = field(default_factory=dict)
    stats: dict[int, list[tuple[float, EngineStats, int]]] = field(default_factory=dict)
    events: int = 0


class CountedActors(RayActors):
    """RayActors that keep a record of their events."""

    heard: Heard

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        events = super().poll(timeout_seconds)
        now, heard = time.monotonic(), self.heard
        heard.events += len(events)
        for slot, event in events:
            match event:
                case Ready():
                    heard.ready[slot] = now
                case Progress():
                    heard.stats.setdefault(slot, []).append((now, event.engine, event.tally.rows))
        return events


@dataclass(frozen=True, kw_only=True, slots=True)
class RealRun:
    """A fleet at work for a while after its last engine was up.

    cpu_seconds: of the whole driver process, Ray's threads included; loop_cpu_seconds: of the thread that
    runs the job. tokens_per_second: of all engines, each between its first and its last report in that time.
    """

    actors: int
    start_seconds: float
    call_seconds: float
    seconds: float
    events: int
    cpu_seconds: float
    loop_cpu_seconds: float
    driver_mib: float
    actor_mib: float
    tokens_per_second: float
    rows_per_second: float


def run_for(seconds: float, *, num_actors: int, output: Path) -> RealRun:
    """Measure a fleet for `seconds` in the middle of a job, then stop the job."""
    config = load_config(
        None,
        [
            f"num_rows={num_actors * 2000}",
            f"output.path={output}",
            f"output.rows_per_partition={_ROWS_PER_PARTITION}",
            "engine.device=cpu",
            f"cluster.num_actors={num_actors}",
        ],
    )
    build_spec = resolve_build(config)
    storage = checks.check_output(find_output(config, claim=False).storage, single_writer=False)
    record = build_record.open_build(storage, build_spec.record(_ROWS_PER_PARTITION))
    run = run_records.start_run(storage, num_rows=config.num_rows, host=socket.gethostname(), config={})
    dispatcher = Dispatcher(
        partitioning.pending(config.num_rows, _ROWS_PER_PARTITION, []),
        num_slots=num_actors,
        grid=_ROWS_PER_PARTITION,
        max_failures_per_partition=3,
    )
    interval = progress_seconds(num_actors, stall_timeout_seconds=config.cluster.stall_timeout_seconds)

    spec = WorkerSpec(
        build_spec=build_spec,
        storage=storage,
        fingerprint=record.fingerprint,
        run=run.number,
        device="cpu",
    )

    with ClusterWatch(may_grow=False) as watch:
        actors = CountedActors(
            spec,
            lambda engine_start: EngineStart(engine_start=engine_start, progress_seconds=interval),
            Placement(device="cpu", num_cpus=0.001, num_gpus=0),
            watch,
            capacity_in=lambda _: num_actors,
            secrets=frozenset(),
            engine_factory=FixedSpeed(),
            process=BareProcess,
        )
        actors.heard = Heard()
        ledger = Ledger([])
        job = Job(
            config=config,
            storage=storage,
            ledger=ledger,
            output=OutputSync(storage, record, ledger, num_rows=config.num_rows),
            dispatcher=dispatcher,
            actors=actors,
        )
        meter = _Meter(actors.heard, num_actors=num_actors, seconds=seconds)
        with suppress(InterruptedJobError):
            job.work([], meter.over)
    return meter.result()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reading:
    """The driver's process at one moment. Seconds; `events` are those heard so far."""

    time: float
    cpu: float
    loop_cpu: float
    events: int


class _Meter:
    """Measures for `seconds` from the moment at which all engines have been up for a while.

    The job's loop asks `over` in each of its turns whether to stop.
    """

    def __init__(self, heard: Heard, *, num_actors: int, seconds: float) -> None:
        self._heard, self._actors, self._seconds = heard, num_actors, seconds
        self._process = psutil.Process()
        self._called: float | None = None
        self._begin: _Reading | None = None
        self._result: RealRun | None = None

    def _read(self) -> _Reading:
        cpu = self._process.cpu_times()
        return _Reading(
            time=time.monotonic(),
            cpu=cpu.user + cpu.system,
            loop_cpu=time.thread_time(),
            events=self._heard.events,
        )

    def over(self) -> bool:
        """Whether the time is over. Takes the readings on the way."""
        now, ready = time.monotonic(), self._heard.ready
        self._called = self._called or now
        if self._begin is None:
            if len(ready) == self._actors and now > max(ready.values()) + _SETTLE_SECONDS:
                self._begin = self._read()
            return now - self._heard.begun > _START_SECONDS + 2 * self._actors and self._begin is None
        if now - self._begin.time < self._seconds:
            return False
        self._result = self._result or self._measure(self._begin, self._read())
        return True

    def _measure(self, begin: _Reading, end: _Reading) -> RealRun:
        tokens = rows = 0.0
        for reports in self._heard.stats.values():
            inside = [report for report in reports if begin.time <= report[0] <= end.time]
            if len(inside) > 1:
                (t0, first, rows0), (t1, last, rows1) = inside[0], inside[-1]
                tokens += (last.generated_tokens - first.generated_tokens) / (t1 - t0)
                rows += (rows1 - rows0) / (t1 - t0)
        workers = [p for p in self._process.children(recursive=True) if "BareProcess" in _name(p)]
        pss = [_pss(p) for p in workers[:8]]
        assert self._called is not None
        return RealRun(
            actors=self._actors,
            start_seconds=max(self._heard.ready.values()) - self._heard.begun,
            call_seconds=self._called - self._heard.begun,
            seconds=end.time - begin.time,
            events=end.events - begin.events,
            cpu_seconds=end.cpu - begin.cpu,
            loop_cpu_seconds=end.loop_cpu - begin.loop_cpu,
            driver_mib=self._process.memory_info().rss / 2**20,
            actor_mib=sum(pss) / max(1, len(pss)),
            tokens_per_second=tokens,
            rows_per_second=rows,
        )

    def result(self) -> RealRun:
        """The measurement. RuntimeError when the actors did not come up in time."""
        if self._result is None:
            up = len(self._heard.ready)
            raise RuntimeError(f"only {up} of {self._actors} actors came up: is the machine busy?")
        return self._result


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _pss(process: psutil.Process) -> float:
    """MiB of memory; shared memory is divided among the processes that share it."""
    try:
        return float(process.memory_full_info().pss / 2**20)
    except psutil.Error:
        return 0.0
