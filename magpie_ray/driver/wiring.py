"""The parts of a run, put together: which work is left, the actors that do it, and what is kept of it."""

import logging
from dataclasses import dataclass

from magpie_ray.coordinator.dispatcher import Dispatcher
from magpie_ray.coordinator.fleet import progress_seconds
from magpie_ray.coordinator.job import Job
from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.coordinator.placement import Placement, choose_num_actors
from magpie_ray.dataset import partitioning, run_records
from magpie_ray.dataset.actor_history import ActorHistory
from magpie_ray.dataset.run_records import RunRecord
from magpie_ray.driver.cluster_watch import ClusterView, ClusterWatch
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.errors import PreflightError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.checks import CommittedBuild
from magpie_ray.storage.storage import Storage
from magpie_ray.utils import logs
from magpie_ray.worker.spec import EngineFactory, WorkerSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """What a run is made from. num_actors: how many there are to be at first."""

    build_spec: BuildSpec
    storage: Storage
    committed: CommittedBuild
    run: RunRecord
    watch: ClusterWatch
    placement: Placement
    num_actors: int
    engine_factory: EngineFactory | None

    def make_job(self) -> Job:
        """The run's job; no actor starts yet."""
        config, storage, committed, run = self.build_spec.config, self.storage, self.committed, self.run
        pending = committed.pending(config.num_rows)
        log.info("run %d: %d rows to generate in %s", run.number, partitioning.rows_in(pending), storage.url)
        dispatcher = Dispatcher(
            pending,
            num_slots=min(self.num_actors, len(pending)),
            grid=committed.build.rows_per_partition,
            max_failures_per_partition=config.cluster.max_failures_per_partition,
            backwards=run_records.is_second(storage, run),
            copies=storage.exclusive,
        )
        lives = ActorHistory(run=run.number, device=self.placement.device, num_gpus=self.placement.all_gpus)
        ledger = Ledger(
            storage,
            committed.build,
            committed.records,
            num_rows=config.num_rows,
            run=run.number,
            lives=lives,
        )
        actors = RayActors(
            lambda engine_start: self._spec(engine_start, num_slots=dispatcher.num_slots),
            self.placement,
            self.watch,
            capacity_in=self._capacity,
            secrets=config.secrets(),
            engine_factory=self.engine_factory,
        )
        return Job(
            config=config,
            storage=storage,
            ledger=ledger,
            dispatcher=dispatcher,
            lives=lives,
            actors=actors,
        )

    def _spec(self, engine_start: int, *, num_slots: int) -> WorkerSpec:
        """Of the worker of one engine start; the more slots there are, the more rarely each is heard."""
        stall = self.build_spec.config.cluster.stall_timeout_seconds
        return WorkerSpec(
            build_spec=self.build_spec,
            storage=self.storage,
            fingerprint=self.committed.build.fingerprint,
            run=self.run.number,
            engine_start=engine_start,
            device=self.placement.device,
            distributed_executor_backend=self.placement.distributed_executor_backend,
            on_ray=True,
            log_style=logs.current(),
            progress_seconds=progress_seconds(num_slots, stall_timeout_seconds=stall),
        )

    def _capacity(self, view: ClusterView) -> int:
        """How many actors the cluster has room for: as many as were asked for, or as its nodes now hold."""
        if self.build_spec.config.cluster.num_actors != "auto":
            return self.num_actors
        try:
            return choose_num_actors(
                self.build_spec.config, placement=self.placement, resources=view.resources
            )
        except PreflightError:  # all nodes are gone for now
            return 0
