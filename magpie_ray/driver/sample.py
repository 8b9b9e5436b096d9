"""A sample of a build: its own rows on real engines on this machine, for a while, and then thrown away.

What always holds: nothing is written to the build's output; as many engines run side by side as the build
would have here.
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray import draws
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import (
    ClusterResources,
    Placement,
    choose_device,
    choose_num_actors,
    place,
)
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.parquet import make_table_format, parquet_bytes
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.connect import ray_session
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.driver.stop_signals import stop_signals
from magpie_ray.errors import PreflightError
from magpie_ray.planning.estimate import Sample
from magpie_ray.planning.sampler import Sampler
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.checks import CommittedBuild
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.utils import logs
from magpie_ray.worker.spec import EngineFactory, WorkerSpec

log = logging.getLogger(__name__)

# What has not begun when the time is over is taken back in these units. Smaller files cost more words.
_ROWS_PER_PARTITION = 64
# No sample gets further.
_MOST_ROWS = 1_000_000


def take_sample(
    config: Config,
    seconds: float,
    *,
    engine_factory: EngineFactory | None = None,
    began: float | None = None,
) -> Sample:
    """Make rows of the build for so many seconds after the last engine is up, or until all are made.

    began: when the command did, by time.monotonic(). Raises what `generate` does before anything starts,
    GenerationFailedError when an engine fails, InterruptedJobError when told to stop.
    """
    began = time.monotonic() if began is None else began
    storage, build_spec, committed = checks.look_at(config)
    config = build_spec.config
    if committed and not committed.pending(config.num_rows):
        raise PreflightError(f"{storage.url} has all of its rows: nothing is left to take a sample of")
    if engine_factory is None:
        checks.check_engine_is_installed()
    with (
        tempfile.TemporaryDirectory(prefix="magpie-ray-sample-") as folder,
        ray_session(_here(config)),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        scope = _scope(build_spec, committed, watch.view.resources)
        actors = RayActors(
            partial(_spec, build_spec, Storage(folder), scope.placement),
            scope.placement,
            watch,
            capacity_in=lambda _: scope.engines,
            secrets=config.secrets(),
            engine_factory=engine_factory,
        )
        log.info("%d engines make a sample for %.0f s", scope.engines, seconds)
        sampler = Sampler(
            actors, scope.pieces, num_slots=scope.engines, grid=scope.grid, seconds=seconds, began=began
        )
        sampler.work(stop_requested)
        found = sampler.result(num_rows=scope.num_rows)
        bytes_per_row, bytes_per_file = _bytes_of(Path(folder), config)
    return replace(
        found,
        device=scope.placement.device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=time.monotonic() - sampler.ended,
    )


def _spec(build_spec: BuildSpec, storage: Storage, placement: Placement, engine_start: int) -> WorkerSpec:
    return WorkerSpec(
        build_spec=build_spec,
        storage=storage,
        fingerprint="",
        run=draws.MAX_RUNS - 1,
        engine_start=engine_start,
        device=placement.device,
        distributed_executor_backend=placement.distributed_executor_backend,
        log_style=logs.current(),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scope:
    """What is sampled, by how many engines. num_rows: all that are pending; pieces of them, cut at `grid`."""

    placement: Placement
    engines: int
    num_rows: int
    pieces: Sequence[Partition]
    grid: int


def _scope(build_spec: BuildSpec, committed: CommittedBuild | None, resources: ClusterResources) -> _Scope:
    """As many engines as the build would have on this machine. PreflightError when it holds none."""
    config = build_spec.config
    device = choose_device(config, resources)
    checks.check_engine_device(build_spec, device=device)
    placement = place(config, device=device, resources=resources)
    here = choose_num_actors(_here(config), placement=placement, resources=resources)
    wanted = here if config.cluster.num_actors == "auto" else config.cluster.num_actors
    if committed:
        grid = committed.build.rows_per_partition
    else:
        grid = checks.choose_grid(build_spec, num_actors=wanted, device=device)
    cell = min(grid, _ROWS_PER_PARTITION)
    done = [record.partition for record in committed.records] if committed else []
    num_rows = partitioning.rows_in(partitioning.pending(config.num_rows, grid, done))
    pieces = partitioning.pending(min(config.num_rows, config.num_rows - num_rows + _MOST_ROWS), cell, done)
    return _Scope(
        placement=placement,
        engines=min(here, wanted, len(pieces)),
        num_rows=num_rows,
        pieces=pieces,
        grid=cell,
    )


def _here(config: Config) -> Config:
    """The same on a cluster of this machine's own, with as many actors as it holds."""
    cluster = config.cluster.model_copy(update={"num_actors": "auto", "address": "local"})
    return config.model_copy(update={"cluster": cluster})


def _bytes_of(folder: Path, config: Config) -> tuple[float, float]:
    """Bytes of a row, and of a file whatever its rows: from the sample's files, and one of all their rows."""
    paths = sorted(folder.glob("data/*.parquet"))
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, make_table_format(config)))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
