"""Engines of a build on this machine, whose rows go to a temporary folder and are thrown away.

Invariant: nothing is written to the build's output.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from magpie_ray import draws
from magpie_ray.coordinator.placement import Placement, most_actors, place
from magpie_ray.dataset.layout import DATA_FILES
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.connect import ray_session, stop_signals
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.planning.sampler import Sampler
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.companions import write_companions
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.utils.limits import limits_told
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec, main_code_of


@dataclass(frozen=True, kw_only=True, slots=True)
class EnginesHere:
    """storage: the temporary folder. most: how many engines fit on this machine."""

    build_spec: BuildSpec
    storage: Storage
    placement: Placement
    most: int
    stop_requested: Callable[[], bool]
    watch: ClusterWatch
    engine_factory: EngineFactory | None

    def sampler(
        self, pieces: Sequence[Partition], *, engines: int, grid: int, seconds: float, began: float
    ) -> Sampler:
        """The loop that has `engines` engines make the pieces; Sampler says what the numbers mean."""
        config = self.build_spec.config
        return Sampler(
            self._actors(engines),
            pieces,
            num_slots=engines,
            grid=grid,
            seconds=seconds,
            began=began,
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
        )

    def _actors(self, engines: int) -> RayActors:
        spec = WorkerSpec(
            build_spec=self.build_spec,
            storage=self.storage,
            fingerprint="",
            run=draws.MAX_RUNS - 1,
            device=self.placement.device,
            distributed_executor_backend=self.placement.distributed_executor_backend,
            main_code=main_code_of(self.build_spec.config),
        )
        return RayActors(
            spec,
            lambda engine_start: EngineStart(engine_start=engine_start),
            self.placement,
            self.watch,
            capacity_in=lambda _: engines,
            secrets=self.build_spec.config.secrets(),
            engine_factory=self.engine_factory,
        )

    def files(self) -> list[Path]:
        """The Parquet files that are there, by first row."""
        return sorted(Path(self.storage.url).glob(DATA_FILES))


@contextmanager
def engines_here(build_spec: BuildSpec, engine_factory: EngineFactory | None) -> Iterator[EnginesHere]:
    """Ray on this machine and a temporary folder, both gone at the end.

    Raises PreflightError where the engine is not installed or nothing here can hold it.
    """
    if engine_factory is None:
        checks.check_engine_is_installed()
    with (
        limits_told(),
        tempfile.TemporaryDirectory(prefix="magpie-ray-rows-") as folder,
        ray_session("local"),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        storage = Storage(folder)
        write_companions(build_spec, storage)
        placement = place(build_spec.config, watch.view.resources)
        yield EnginesHere(
            build_spec=build_spec,
            storage=storage,
            placement=placement,
            most=most_actors(placement, watch.view.resources),
            stop_requested=stop_requested,
            watch=watch,
            engine_factory=engine_factory,
        )
