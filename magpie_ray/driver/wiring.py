"""The parts of a run, wired: the pending work, the actors that do it, and the records kept of it."""

import logging
from functools import partial

from magpie_ray.config.loading import JobConfig
from magpie_ray.coordinator.actor_history import ActorHistory
from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import progress_seconds
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.notice import ENDED_SHARE, Notice
from magpie_ray.coordinator.output_sync import OutputSync
from magpie_ray.coordinator.placement import Placement, most_actors
from magpie_ray.dataset import partitioning, run_records
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.driver.cluster_watch import ClusterView, ClusterWatch
from magpie_ray.driver.ray_actors import ASK_SECONDS, RayActors
from magpie_ray.errors import PreflightError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.companions import write_companions
from magpie_ray.preflight.target import CommittedBuild
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec, main_code_of

log = logging.getLogger(__name__)


def make_job(
    *,
    build_spec: BuildSpec,
    storage: Storage,
    committed: CommittedBuild,
    run: RunRecord,
    watch: ClusterWatch,
    placement: Placement,
    num_actors: int,
    engine_factory: EngineFactory | None,
    notice: Notice,
) -> Job:
    """The run's job; no actor starts yet. num_actors: how many actors the run starts with."""
    config = build_spec.config
    pending = committed.pending
    log.info("run %d: %d rows to make in %s", run.number, partitioning.rows_in(pending), storage.url)
    dispatcher = Dispatcher(
        pending,
        num_slots=min(num_actors, len(pending)),
        grid=committed.build.rows_per_partition,
        max_failures_per_partition=config.cluster.max_failures_per_partition,
        backwards=run_records.is_second(storage, run),
        copies=storage.exclusive,
    )
    history = ActorHistory(run=run.number, device=placement.device, num_gpus=placement.all_gpus)
    ledger = Ledger(committed.records, run=run.number)
    output = OutputSync(
        storage,
        committed.build,
        ledger,
        num_rows=config.num_rows,
        run=run,
        history=history,
        copy_inputs=partial(write_companions, build_spec, storage) if build_spec.inputs else None,
    )
    spec = _worker_spec(build_spec, storage, committed, run, placement)
    actors = RayActors(
        spec,
        partial(_engine_start, spec, dispatcher),
        placement,
        watch,
        capacity_in=partial(_capacity, config, placement),
        secrets=config.secrets(),
        engine_factory=engine_factory,
        ask_seconds=partial(notice.left, ENDED_SHARE, most=ASK_SECONDS),
    )
    return Job(
        config=config,
        storage=storage,
        ledger=ledger,
        output=output,
        dispatcher=dispatcher,
        actors=actors,
        history=history,
        notice=notice,
    )


def _worker_spec(
    build_spec: BuildSpec, storage: Storage, committed: CommittedBuild, run: RunRecord, placement: Placement
) -> WorkerSpec:
    """What all workers of the run are made from."""
    return WorkerSpec(
        build_spec=build_spec.for_workers(),
        storage=storage,
        fingerprint=committed.build.fingerprint,
        run=run.number,
        device=placement.device,
        distributed_executor_backend=placement.distributed_executor_backend,
        main_code=main_code_of(build_spec.config),
        on_ray=True,
    )


def _engine_start(spec: WorkerSpec, dispatcher: Dispatcher, engine_start: int) -> EngineStart:
    """One engine start. A worker reports the less often, the more slots there are by then."""
    stall = spec.build_spec.config.cluster.stall_timeout_seconds
    seconds = progress_seconds(dispatcher.num_slots, stall_timeout_seconds=stall)
    return EngineStart(engine_start=engine_start, progress_seconds=seconds)


def _capacity(config: JobConfig, placement: Placement, view: ClusterView) -> int:
    """As many actors as configured, or as the cluster can hold now."""
    if config.cluster.num_actors != "auto":
        return config.cluster.num_actors
    try:
        return most_actors(placement, view.resources)
    except PreflightError:  # all nodes are gone for now
        return 0
