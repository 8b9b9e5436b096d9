"""One driver after another on one build, until it is complete."""

import logging
import random
import resource
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jobs.benchmarks.virtual_job import bare_build
from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.run import BuildResult, carry_out
from magpie_ray.dataset import build_record, manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.errors import MagpieError
from magpie_ray.monitoring.heartbeat import Heartbeat
from magpie_ray.types import PartitionRecord
from tests.chaos.week.actors import DRIVER_KILLED, DriverKilledError, VirtualActors
from tests.chaos.week.agenda import Agenda
from tests.chaos.week.cluster import Cluster
from tests.chaos.week.costs import Costs
from tests.chaos.week.life import HUB, OUTAGE
from tests.chaos.week.prompts import Prompts
from tests.chaos.week.scale import DAY, Scale
from tests.chaos.week.store import Objects, VirtualStorage
from tests.chaos.week.world import World

log = logging.getLogger(__name__)

# Ends of drivers that nobody has killed, before the week counts as one that does not end by itself.
_MOST_FAILURES = 5


def peak_megabytes() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(slots=True)
class Week:
    """What came of it. capacity_seconds: of engines on healthy nodes, see docs/guarantees.md."""

    scale: Scale
    costs: Costs
    objects: Objects
    seconds: float = 0.0
    drivers: int = 0
    actors: int = 0
    events: int = 0
    capacity_seconds: float = 0.0
    useful_seconds: float = 0.0
    unused_seconds: float = 0.0
    idle_seconds: float = 0.0
    longest_wait: float = 0.0
    driver_cpu_seconds: float = 0.0
    real_seconds: float = 0.0
    result: BuildResult | None = None
    failures: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the healthy nodes' capacity that is in files."""
        return self.useful_seconds / self.capacity_seconds


class _AtOnce(Executor):
    """Runs what is submitted at once, in the virtual time that its requests to the store take."""

    def __init__(self, storage: VirtualStorage) -> None:
        self._storage = storage

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        self._storage.spent = 0.0
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as exc:  # noqa: BLE001 - a future holds whatever was raised
            future.set_exception(exc)
        self._storage.spent = 0.0
        return future


def run_week(scale: Scale) -> Week:
    """The whole build."""
    began = time.monotonic()
    agenda, costs = Agenda(), Costs()
    fingerprint = bare_build(scale.rows_per_partition).fingerprint
    week = Week(scale, costs, Objects(agenda, fingerprint=fingerprint))
    prompts, draw = Prompts(scale), random.Random(f"week {scale.seed}")
    costs.note(HUB)
    while week.result is None and len(week.failures) < _MOST_FAILURES:
        nodes = scale.nodes
        if week.drivers:
            nodes = draw.randint(round(scale.fewest * nodes), round(scale.most * nodes))
        _drive(week, agenda, prompts, draw, nodes=nodes)
        agenda.forget()
        if week.result is None:  # a driver that starts while the store is out ends at once
            back = agenda.now + draw.uniform(*scale.driver_away_seconds)
            agenda.pass_until(max(back, week.objects.out_until))
    week.seconds, week.real_seconds = agenda.now, time.monotonic() - began
    return week


def _drive(week: Week, agenda: Agenda, prompts: Prompts, draw: random.Random, *, nodes: int) -> None:
    """One driver, as `driver.run_build` makes it."""
    cpu = time.thread_time()
    scale = week.scale
    storage = VirtualStorage(week.objects, request_seconds=scale.request_seconds)
    build = build_record.open_build(storage, bare_build(scale.rows_per_partition))
    records = manifest.read_committed(storage, build)
    manifest.mark_growing(storage)
    run = run_records.start_run(storage, num_rows=scale.rows, host="driver", config={})
    week.drivers += 1
    if agenda.now <= scale.outage_at:
        agenda.at(scale.outage_at, lambda: _go_out(week, agenda))
    world = World(
        scale=scale,
        agenda=agenda,
        cluster=Cluster(scale, agenda, draw, week.costs, nodes=nodes),
        objects=week.objects,
        prompts=prompts,
        costs=week.costs,
        draw=draw,
        run=run.number,
    )
    dispatcher, actors = _actors(world, storage, build, records, run)
    make_job = partial(_make_job, world, storage, build, records, run, dispatcher, actors)
    heartbeat = Heartbeat(storage, run, clock=agenda.clock, executor=_AtOnce(storage))
    try:
        week.result = carry_out(make_job, run, storage, build, lambda: False, [heartbeat])
    except DriverKilledError:
        pass
    except MagpieError as exc:
        week.failures.append(f"{type(exc).__name__} at {agenda.now / 3600:.1f} h: {exc}")
    week.events += actors.events
    week.driver_cpu_seconds += time.thread_time() - cpu - actors.cpu_seconds
    _book(week, world)
    log.info(
        "driver %d ended at day %.2f: %d files, %.2f%% of the capacity, %.0f MB, %.0f s of CPU",
        week.drivers,
        agenda.now / DAY,
        len(week.objects),
        100 * week.share,
        peak_megabytes(),
        time.process_time(),
    )


def _actors(
    world: World, storage: VirtualStorage, build: BuildRecord, records: list[PartitionRecord], run: RunRecord
) -> tuple[Dispatcher, VirtualActors]:
    """The pending work, and the actors that do it until their driver is killed."""
    scale = world.scale
    pending = manifest.pending(scale.rows, build, records)
    dispatcher = Dispatcher(
        pending,
        num_slots=min(len(world.cluster.nodes) * scale.actors_per_node, len(pending)),
        grid=build.rows_per_partition,
        max_failures_per_partition=_config(scale).cluster.max_failures_per_partition,
        backwards=run_records.is_second(storage, run),
    )

    def die() -> None:
        world.costs.note(DRIVER_KILLED)
        storage.gone = True

    actors = VirtualActors(
        world,
        killed_at=world.now + scale.driver_lives_seconds * world.draw.uniform(0.9, 1.1),
        on_kill=die,
        is_pending=lambda: dispatcher.fullest.last() is not None,
    )
    return dispatcher, actors


def _make_job(
    world: World,
    storage: VirtualStorage,
    build: BuildRecord,
    records: list[PartitionRecord],
    run: RunRecord,
    dispatcher: Dispatcher,
    actors: VirtualActors,
) -> Job:
    """As `driver.wiring` makes it, in virtual time."""
    clock = world.agenda.clock
    history = ActorHistory(run=run.number, device="cuda", num_gpus=1, clock=clock)
    ledger = Ledger(records, run=run.number)
    output = OutputSync(
        storage,
        build,
        ledger,
        num_rows=world.scale.rows,
        history=history,
        clock=lambda: world.now + storage.spent,
        executor=_AtOnce(storage),
    )
    return Job(
        config=_config(world.scale),
        storage=storage,
        ledger=ledger,
        output=output,
        dispatcher=dispatcher,
        actors=actors,
        history=history,
        clock=clock,
        draw=world.draw,
    )


def _config(scale: Scale) -> Config:
    return load_config(None, [f"num_rows={scale.rows}", "n_turns=1", "output.path=memory://week"])


def _go_out(week: Week, agenda: Agenda) -> None:
    week.costs.note(OUTAGE)
    week.objects.out_until = agenda.now + week.scale.outage_seconds


def _book(week: Week, world: World) -> None:
    """Add up one driver's time. What the hub refuses at the very beginning is not counted."""
    gain, cluster, first = world.gain, world.cluster, week.drivers == 1
    week.useful_seconds += gain.useful
    week.idle_seconds += gain.idle
    week.capacity_seconds += cluster.usable_seconds - (gain.before if first else 0)
    week.unused_seconds += cluster.unused.seconds - (gain.unused_before if first else 0)
    tail = world.now if gain.tail is None else gain.tail
    week.longest_wait = max(
        [week.longest_wait, cluster.longest_wait, *(tail - since for since in cluster.idle_since())]
    )
