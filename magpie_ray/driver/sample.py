"""A sample of a build: rows of that build, made for a while by real engines on this machine, and thrown away.

Invariants: nothing is written to the build's output; as many engines run side by side as the build would have
on this machine.
"""

import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray import draws
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import ClusterResources, Placement, choose_num_actors
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.parquet import make_table_format, parquet_bytes
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.connect import ray_session
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.driver.stop_signals import stop_signals
from magpie_ray.driver.wiring import place_actor
from magpie_ray.errors import PreflightError
from magpie_ray.planning.estimate import Sample
from magpie_ray.planning.sampler import Sampler
from magpie_ray.preflight import checks
from magpie_ray.preflight.build_spec import choose_grid
from magpie_ray.preflight.target import Target, look_at
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.utils import logs
from magpie_ray.worker.spec import EngineFactory, WorkerSpec

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

    began: when the command started, by time.monotonic(). Raises what `generate` raises before anything
    starts, GenerationFailedError when an engine fails, InterruptedJobError when told to stop.
    """
    began = time.monotonic() if began is None else began
    target = look_at(config)
    build_spec = target.build_spec
    if target.committed and not target.committed.pending:
        raise PreflightError(f"{target.storage.url} has all of its rows: nothing is left to take a sample of")
    if engine_factory is None:
        checks.check_engine_is_installed()
    with (
        tempfile.TemporaryDirectory(prefix="magpie-ray-sample-") as folder,
        ray_session("local"),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        scope = _scope(target, watch.view.resources)

        def spec_of(engine_start: int) -> WorkerSpec:
            return WorkerSpec(
                build_spec=build_spec,
                storage=Storage(folder),
                fingerprint="",
                run=draws.MAX_RUNS - 1,
                engine_start=engine_start,
                device=scope.placement.device,
                distributed_executor_backend=scope.placement.distributed_executor_backend,
                log_style=logs.current(),
            )

        actors = RayActors(
            spec_of,
            scope.placement,
            watch,
            capacity_in=lambda _: scope.engines,
            secrets=build_spec.config.secrets(),
            engine_factory=engine_factory,
        )
        log.info("%d engines make a sample for %.0f s", scope.engines, seconds)
        sampler = Sampler(
            actors, scope.pieces, num_slots=scope.engines, grid=scope.grid, seconds=seconds, began=began
        )
        sampler.work(stop_requested)
        sample = sampler.result(num_rows=scope.num_rows)
        bytes_per_row, bytes_per_file = _bytes_of(Path(folder), build_spec.config)
    return replace(
        sample,
        device=scope.placement.device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=time.monotonic() - sampler.ended,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scope:
    """How many engines sample which rows. num_rows: all pending rows; `pieces` of them, cut at `grid`."""

    placement: Placement
    engines: int
    num_rows: int
    pieces: Sequence[Partition]
    grid: int


def _scope(target: Target, resources: ClusterResources) -> _Scope:
    """As many engines as the build would have on this machine. PreflightError when the machine holds none."""
    build_spec, config, committed = target.build_spec, target.build_spec.config, target.committed
    placement = place_actor(build_spec, resources)
    as_many_as_fit = config.cluster.model_copy(update={"num_actors": "auto"})
    fitting = choose_num_actors(
        config.model_copy(update={"cluster": as_many_as_fit}), placement=placement, resources=resources
    )
    wanted = fitting if config.cluster.num_actors == "auto" else config.cluster.num_actors
    if committed:
        grid = committed.build.rows_per_partition
    else:
        grid = choose_grid(build_spec, num_actors=wanted, device=placement.device)
    cell = min(grid, _ROWS_PER_PIECE)
    done = [record.partition for record in committed.records] if committed else []
    num_rows = partitioning.rows_in(committed.pending) if committed else config.num_rows
    pieces = partitioning.pending(min(config.num_rows, config.num_rows - num_rows + _MOST_ROWS), cell, done)
    return _Scope(
        placement=placement,
        engines=min(fitting, wanted, len(pieces)),
        num_rows=num_rows,
        pieces=pieces,
        grid=cell,
    )


def _bytes_of(folder: Path, config: Config) -> tuple[float, float]:
    """Bytes of a row, and of a file beside its rows, from the sample's files and one file of all rows."""
    paths = sorted(folder.glob("data/*.parquet"))
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, make_table_format(config)))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
