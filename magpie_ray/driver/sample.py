"""A sample of a build: rows of that build, made for a while by real engines on this machine, and thrown away.

Invariants: nothing is written to the build's output; as many engines run side by side as the build would have
on this machine.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.config.loading import JobConfig
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.parquet import parquet_bytes
from magpie_ray.driver.engines_here import engines_here
from magpie_ray.errors import PreflightError
from magpie_ray.planning.estimate import Sample
from magpie_ray.preflight.build_spec import choose_grid
from magpie_ray.preflight.target import CommittedBuild, look_at
from magpie_ray.types import Partition
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.worker.spec import EngineFactory

log = logging.getLogger(__name__)

# Pieces that have not begun when the time is over are taken back. Smaller pieces cost more messages.
_ROWS_PER_PIECE = 64
# No sample makes more rows than this.
_MOST_ROWS = 1_000_000


def take_sample(
    config: JobConfig,
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
    with engines_here(build_spec, engine_factory) as here:
        # As many engines as the build would have on this machine.
        device = here.placement.device
        num_actors = here.most if config.cluster.num_actors == "auto" else config.cluster.num_actors
        grid = choose_grid(build_spec, num_actors=num_actors, device=device)
        grid = min(committed.build.rows_per_partition if committed else grid, _ROWS_PER_PIECE)
        num_rows = partitioning.rows_in(committed.pending) if committed else config.num_rows
        pieces = _pieces(config, committed, grid=grid, num_rows=num_rows)
        engines = min(here.most, num_actors, len(pieces))
        sampler = here.sampler(pieces, engines=engines, grid=grid, seconds=seconds, began=began)
        log.info("%d engines make a sample for %.0f s", engines, seconds)
        sampler.work(here.stop_requested)
        sample = sampler.result(num_rows=num_rows)
        bytes_per_row, bytes_per_file = _bytes_of(here.files(), config)
    return replace(
        sample,
        device=device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=awake_seconds() - sampler.ended,
    )


def _pieces(
    config: JobConfig, committed: CommittedBuild | None, *, grid: int, num_rows: int
) -> list[Partition]:
    """The first of the `num_rows` pending rows."""
    done = [record.partition for record in committed.records] if committed else []
    return partitioning.pending(min(config.num_rows, config.num_rows - num_rows + _MOST_ROWS), grid, done)


def _bytes_of(paths: Sequence[Path], config: JobConfig) -> tuple[float, float]:
    """Bytes of a row, and of a file beside its rows, from the sample's files and one file of all rows."""
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, config.output.compression))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
