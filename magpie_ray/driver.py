"""The driver: preflight, place actors, watch them, finish the build. The only module that imports ray.

A thin shell: what is decided is decided in plan, preflight, placement, dispatch and job; here it is carried
out on Ray. What always holds: whatever ends a run, what is committed stays and its record says how it ended.
"""

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.utils import read_ray_address
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from magpie_ray import build, manifest, preflight
from magpie_ray.build import BuildRecord, RunRecord
from magpie_ray.config import Config
from magpie_ray.dispatch import Dispatcher
from magpie_ray.errors import (
    MagpieError,
    PreflightError,
)
from magpie_ray.job import Job, Left, Lost
from magpie_ray.placement import ClusterResources, Placement, choose_device, choose_num_actors, place
from magpie_ray.preflight import Blueprint
from magpie_ray.run import BuildResult, carry_out, nothing_to_do, open_build
from magpie_ray.stop_signals import stop_signals
from magpie_ray.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.worker import Event, ShardWorker
from magpie_ray.worker_spec import EngineFactory, WorkerSpec

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0


def generate(config: Config, *, engine_factory: EngineFactory | None = None) -> BuildResult:
    """Run, or resume, the build that `config` describes, on the Ray cluster at hand.

    Returns when the build is complete. Raises MagpieError: ConfigError, FormatError and PreflightError before
    anything costly starts, InterruptedJobError on SIGINT or SIGTERM, GenerationFailedError or
    RowExhaustedError when the job gives up. What is committed stays; the same call resumes.
    """
    storage = preflight.open_output(config)
    preflight.check_output_is_shared(storage)
    preflight.check_output(storage)
    existing = preflight.read_existing(storage)
    blueprint = preflight.draw_up(config, existing)
    for warning in blueprint.warnings:
        log.warning("%s", warning)
    committed = preflight.check_existing(config, blueprint, existing, storage) if existing else None
    if committed and not committed.pending(config.num_rows):
        return nothing_to_do(config, storage, committed)
    with _ray_session(config) as local, stop_signals() as stop_requested:
        log.info("running on %s Ray cluster %s", "a local" if local else "the", _gcs_address())
        if local and engine_factory is None:
            preflight.check_engine_is_installed()
        if not local:
            nodes = sum(node["Alive"] for node in ray.nodes())
            preflight.warn_of_local_output(config, storage, nodes=nodes)
        placement, num_actors = _choose_actors(config, may_grow=not local)
        if committed is None:
            record = open_build(config, storage, blueprint, device=placement.device, num_actors=num_actors)
            committed = preflight.check_existing(config, blueprint, record, storage)
        pending = committed.pending(config.num_rows)
        if not pending:  # another driver was quicker
            return nothing_to_do(config, storage, committed)
        manifest.mark_growing(storage)
        host = socket.gethostname()
        run = build.start_run(storage, num_rows=config.num_rows, host=host, config=config.recorded())
        rows = sum(partition.num_rows for partition in pending)
        log.info("run %d: %d rows to generate in %s", run.number, rows, storage.url)
        actors = _RayActors(
            config=config,
            blueprint=blueprint,
            storage=storage,
            record=committed.build,
            run=run,
            placement=placement,
            engine_factory=engine_factory,
        )
        dispatcher = Dispatcher(
            pending,
            num_slots=min(num_actors, len(pending)),
            grid=committed.build.rows_per_partition,
            max_failures_per_partition=config.cluster.max_failures_per_partition,
        )
        job = Job(
            config=config,
            storage=storage,
            build=committed.build,
            records=committed.records,
            dispatcher=dispatcher,
            actors=actors,
        )
        return carry_out(job, run, storage, committed.build, stop_requested)


def _gcs_address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def _choose_actors(config: Config, *, may_grow: bool) -> tuple[Placement, int]:
    """What an actor takes on this cluster, and how many there are to be. PreflightError if it holds none."""
    resources = _cluster_resources(may_grow=may_grow)
    device = choose_device(config, resources)
    if device == "cpu" and config.engine.device == "auto":
        log.warning("the cluster has no GPU: engines run on CPUs (engine.device: auto)")
    preflight.check_engine_device(config, device=device)
    placement = place(config, device=device, resources=resources)
    return placement, choose_num_actors(config, placement=placement, resources=resources)


class _LoggingWorker(ShardWorker):
    """ShardWorker in a process of its own: what it logs goes to the actor's log file."""

    def __init__(self, spec: WorkerSpec, engine_factory: EngineFactory | None) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("magpie_ray").setLevel(logging.INFO)
        super().__init__(spec, engine_factory)


@dataclass(frozen=True, slots=True)
class _Actor:
    handle: Any
    events: Any  # ray.ObjectRefGenerator
    group: PlacementGroup | None


class _RayActors:
    """The workers as Ray actors (see job.Actors). Ray restarts none by itself: the dispatcher decides."""

    def __init__(
        self,
        *,
        config: Config,
        blueprint: Blueprint,
        storage: Storage,
        record: BuildRecord,
        run: RunRecord,
        placement: Placement,
        engine_factory: EngineFactory | None,
    ) -> None:
        self._config = config
        self._blueprint = blueprint
        self._storage = storage
        self._record = record
        self._run = run
        self._placement = placement
        self._engine_factory = engine_factory
        self._actors: dict[int, _Actor] = {}
        self._actor_class: Any = ray.remote(concurrency_groups={"control": 1}, max_restarts=0)(_LoggingWorker)
        self._listening: dict[Any, int] = {}  # events -> slot, of actors that have not ended

    def start(self, slot: int, *, engine_start: int) -> None:
        """Ask Ray for an actor, in a placement group of its own where the placement has bundles."""
        spec = WorkerSpec(
            config=self._config,
            model=self._blueprint.model,
            chat_format=self._blueprint.chat_format,
            prompts=self._blueprint.prompts,
            storage=self._storage,
            fingerprint=self._record.fingerprint,
            run=self._run.number,
            engine_start=engine_start,
            device=self._placement.device,
            distributed_executor_backend=self._placement.distributed_executor_backend,
        )
        placement, group = self._placement, None
        options: dict[str, Any] = {"num_cpus": placement.num_cpus, "num_gpus": placement.num_gpus}
        if placement.bundles:
            group = placement_group([dict(b) for b in placement.bundles], strategy=placement.strategy)
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(
                placement_group=group,
                placement_group_bundle_index=0,
                placement_group_capture_child_tasks=True,
            )
        handle = self._actor_class.options(**options).remote(spec, self._engine_factory)
        events = handle.run.options(num_returns="streaming").remote()
        self._actors[slot] = _Actor(handle, events, group)
        self._listening[events] = slot

    def give(self, slot: int, partition: Partition) -> None:
        self._actors[slot].handle.give.options(concurrency_group="control").remote(partition)

    def finish(self, slot: int) -> None:
        self._actors[slot].handle.finish.options(concurrency_group="control").remote()

    def stop(self, slot: int) -> None:
        self._actors[slot].handle.stop.options(concurrency_group="control").remote()

    def end(self, slot: int) -> None:
        actor = self._actors.pop(slot, None)
        if actor is None:
            return
        self._listening.pop(actor.events, None)
        ray.kill(actor.handle)
        if actor.group is not None:
            remove_placement_group(actor.group)

    def poll(self, timeout_seconds: float) -> list[tuple[int, Event | Lost | Left]]:
        """The next event of every actor that has one."""
        # The first wait sleeps until anything is there, the second takes all that is.
        everyone = list(self._listening)
        if not everyone:
            return []
        ready, _ = ray.wait(everyone, num_returns=1, timeout=timeout_seconds)
        if ready:
            ready, _ = ray.wait(everyone, num_returns=len(everyone), timeout=0)
        return [(self._listening[events], self._next_event(events)) for events in ready]

    def _next_event(self, events: Any) -> Event | Lost | Left:
        try:
            event: Event = ray.get(next(events))
        except StopIteration:
            del self._listening[events]
            return Left()
        except RayTaskError as exc:
            error = exc.cause if isinstance(exc.cause, MagpieError) else None
            return Lost(cause=f"{type(exc.cause).__name__}: {exc.cause}", error=error)
        except RayError as exc:  # a dead actor or node, no memory, a runtime environment that can't be made
            return Lost(cause=f"{type(exc).__name__}: {exc}")
        return event

    def describe(self) -> str:
        return (
            f"{len(self._actors)} actors want {self._placement} each; the cluster has "
            f"{ray.cluster_resources()}, of which {ray.available_resources()} are free"
        )


@contextlib.contextmanager
def _ray_session(config: Config) -> Iterator[bool]:
    """Connect to a cluster (cluster.address, RAY_ADDRESS, one on this machine) or start a local one.

    Yields whether it is one of our own, which gets no further nodes.
    """
    if ray.is_initialized():
        yield False
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or _cluster_on_this_machine()
    if address and not _answers(address):
        raise _no_cluster(address, "nothing answers there")
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.WARNING,
            log_to_driver=False,
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as exc:
        raise _no_cluster(address or "local", str(exc)) from exc
    try:
        yield address is None
    finally:
        ray.shutdown()


def _no_cluster(address: str, why: str) -> PreflightError:
    return PreflightError(
        f"no Ray cluster at {address}: {why}. Start one with `ray start --head`, or set RAY_ADDRESS or "
        "cluster.address; without both, and none running here, a local one is started"
    )


def _cluster_on_this_machine() -> str | None:
    """The cluster that `ray start` began here, unless it is dead: Ray would wait for it for minutes."""
    address = read_ray_address()
    if address and not _answers(address):
        log.warning("the Ray cluster that was started here (%s) is gone: starting a local one", address)
        return None
    return address or None


def _answers(address: str) -> bool:
    """Whether something listens at host:port or ray://host:port; other forms are Ray's to look up."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _cluster_resources(*, may_grow: bool) -> ClusterResources:
    """What the cluster has now, and what its autoscaler may bring where it tells."""
    # No public call tells what an autoscaler may add; Ray's own libraries ask here.
    from ray._private.state import state

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    limits = state.get_max_resources_from_cluster_config() or {}
    return ClusterResources(
        node_cpus=tuple(float(node.get("CPU", 0)) for node in nodes),
        node_gpus=tuple(float(node.get("GPU", 0)) for node in nodes),
        limit_cpus=float(limits.get("CPU", 0)),
        limit_gpus=float(limits.get("GPU", 0)),
        may_grow=may_grow,
    )
