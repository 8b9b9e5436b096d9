"""A sample of a build: rows of that build, made for a while by real engines on this machine, and thrown away.

Invariants: nothing is written to the build's output; as many engines run side by side as the build would have
on this machine.
"""

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray import draws
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import Placement, most_actors, place
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.layout import DATA_FILES
from magpie_ray.dataset.parquet import parquet_bytes
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.connect import ray_session, stop_signals
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.errors import PreflightError
from magpie_ray.planning.estimate import Sample
from magpie_ray.planning.sampler import Sampler
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import BuildSpec, choose_grid
from magpie_ray.preflight.inputs import copy_inputs
from magpie_ray.preflight.target import CommittedBuild, look_at
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec

log = logging.getLogger(__name__)

# Pieces that have not begun when the time is over are taken back. Smaller pieces cost more messages.
_ROWS_PER_PIECE = 64
# No sample makes more rows than this.
_MOST_ROWS = 1_000_000


def take_sample(
    config: Config,
    seconds: float,
    *,
    engine_factory: EngineFactory | None = None,
    began: float | None = None,
) -> Sample:
    """Make rows of the build for `seconds` after the last engine is up, or until all rows are made.

    began: when the command started, by awake_seconds(). Raises what `generate` raises before anything
    starts, GenerationFailedError when an engine fails, InterruptedJobError when told to stop.
    """
    began = awake_seconds() if began is None else began
    target = look_at(config)
    build_spec, config, committed = target.build_spec, target.build_spec.config, target.committed
    if committed and not committed.pending:
        raise PreflightError(f"{target.storage.url} has all of its rows: nothing is left to take a sample of")
    if engine_factory is None:
        checks.check_engine_is_installed()
    with (
        tempfile.TemporaryDirectory(prefix="magpie-ray-sample-") as folder,
        ray_session("local"),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        # As many engines as the build would have on this machine.
        placement = place(config, watch.view.resources)
        most = most_actors(placement, watch.view.resources)
        num_actors = most if config.cluster.num_actors == "auto" else config.cluster.num_actors
        grid = choose_grid(build_spec, num_actors=num_actors, device=placement.device)
        grid = min(committed.build.rows_per_partition if committed else grid, _ROWS_PER_PIECE)
        num_rows = partitioning.rows_in(committed.pending) if committed else config.num_rows
        pieces = _pieces(config, committed, grid=grid, num_rows=num_rows)
        engines = min(most, num_actors, len(pieces))
        if build_spec.inputs:
            copy_inputs(config, build_spec.inputs, Storage(folder))
        actors = make_actors(build_spec, Storage(folder), placement, watch, engines, engine_factory)
        log.info("%d engines make a sample for %.0f s", engines, seconds)
        sampler = Sampler(
            actors,
            pieces,
            num_slots=engines,
            grid=grid,
            seconds=seconds,
            began=began,
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
        )
        sampler.work(stop_requested)
        sample = sampler.result(num_rows=num_rows)
        bytes_per_row, bytes_per_file = _bytes_of(Path(folder), config)
    return replace(
        sample,
        device=placement.device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=awake_seconds() - sampler.ended,
    )


def make_actors(
    build_spec: BuildSpec,
    storage: Storage,
    placement: Placement,
    watch: ClusterWatch,
    engines: int,
    engine_factory: EngineFactory | None,
) -> RayActors:
    """Actors that write to `storage` and belong to no build there."""
    spec = WorkerSpec(
        build_spec=build_spec,
        storage=storage,
        fingerprint="",
        run=draws.MAX_RUNS - 1,
        engine_start=0,
        device=placement.device,
        distributed_executor_backend=placement.distributed_executor_backend,
    )
    return RayActors(
        spec,
        lambda engine_start: EngineStart(engine_start=engine_start),
        placement,
        watch,
        capacity_in=lambda _: engines,
        secrets=build_spec.config.secrets(),
        engine_factory=engine_factory,
    )


def _pieces(config: Config, committed: CommittedBuild | None, *, grid: int, num_rows: int) -> list[Partition]:
    """The first of the `num_rows` pending rows."""
    done = [record.partition for record in committed.records] if committed else []
    return partitioning.pending(min(config.num_rows, config.num_rows - num_rows + _MOST_ROWS), grid, done)


def _bytes_of(folder: Path, config: Config) -> tuple[float, float]:
    """Bytes of a row, and of a file beside its rows, from the sample's files and one file of all rows."""
    paths = sorted(folder.glob(DATA_FILES))
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, config.output.compression))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
