"""A sample of a build: rows of that build, made for a while by real engines on this machine, and thrown away.

Invariants: nothing is written to the build's output; as many engines run side by side as the build would have
on this machine.
"""

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray import draws
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import most_actors, place
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
from magpie_ray.preflight.build_spec import choose_grid
from magpie_ray.preflight.target import look_at
from magpie_ray.storage.storage import Storage
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
        done = [record.partition for record in committed.records] if committed else []
        num_rows = partitioning.rows_in(committed.pending) if committed else config.num_rows
        stop = min(config.num_rows, config.num_rows - num_rows + _MOST_ROWS)
        pieces = partitioning.pending(stop, grid, done)
        engines = min(most, num_actors, len(pieces))

        def spec_of(engine_start: int) -> WorkerSpec:
            return WorkerSpec(
                build_spec=build_spec,
                storage=Storage(folder),
                fingerprint="",
                run=draws.MAX_RUNS - 1,
                engine_start=engine_start,
                device=placement.device,
                distributed_executor_backend=placement.distributed_executor_backend,
            )

        actors = RayActors(
            spec_of,
            placement,
            watch,
            capacity_in=lambda _: engines,
            secrets=config.secrets(),
            engine_factory=engine_factory,
        )
        log.info("%d engines make a sample for %.0f s", engines, seconds)
        sampler = Sampler(actors, pieces, num_slots=engines, grid=grid, seconds=seconds, began=began)
        sampler.work(stop_requested)
        sample = sampler.result(num_rows=num_rows)
        bytes_per_row, bytes_per_file = _bytes_of(Path(folder), config)
    return replace(
        sample,
        device=placement.device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=time.monotonic() - sampler.ended,
    )


def _bytes_of(folder: Path, config: Config) -> tuple[float, float]:
    """Bytes of a row, and of a file beside its rows, from the sample's files and one file of all rows."""
    paths = sorted(folder.glob(DATA_FILES))
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, config.output.compression))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
