"""A sample of a build: its own rows on real engines on this machine, for a while, and then thrown away.

What always holds: nothing is written to the build's output; as many engines run side by side as the build
would have here.
"""

import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray import logs, plan, preflight, schedule
from magpie_ray.config import Config
from magpie_ray.driver.actors import RayActors
from magpie_ray.driver.cluster import ray_session
from magpie_ray.driver.watch import ClusterWatch
from magpie_ray.estimate import Sample
from magpie_ray.placement import choose_device, choose_num_actors, place
from magpie_ray.sampler import Sampler
from magpie_ray.stop_signals import stop_signals
from magpie_ray.storage import READ_SECONDS, Storage
from magpie_ray.worker_spec import EngineFactory, WorkerSpec, make_table_format
from magpie_ray.writer import parquet_bytes

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
    config, tick = schedule.resolve(config, claim=False)
    reading = preflight.open_output(config, retry_seconds=READ_SECONDS)
    existing = preflight.read_existing(reading)
    blueprint = preflight.draw_up(config, existing, tick=tick)
    config = blueprint.config
    committed = preflight.check_existing(config, blueprint, existing, reading) if existing else None
    if engine_factory is None:
        preflight.check_engine_is_installed()
    with (
        tempfile.TemporaryDirectory(prefix="magpie-ray-sample-") as folder,
        ray_session(config, own=True),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        resources = watch.view.resources
        device = choose_device(config, resources)
        preflight.check_engine_device(config, device=device)
        placement = place(config, device=device, resources=resources)
        here = choose_num_actors(_with_auto_actors(config), placement=placement, resources=resources)
        wanted = here if config.cluster.num_actors == "auto" else config.cluster.num_actors
        if existing:
            grid = existing.rows_per_partition
        else:
            grid = preflight.choose_grid(config, num_actors=wanted, device=device)
        cell = min(grid, _ROWS_PER_PARTITION)
        done = [record.partition for record in committed.records] if committed else []
        pending = sum(partition.num_rows for partition in plan.pending(config.num_rows, grid, done))
        pieces = plan.pending(min(config.num_rows, config.num_rows - pending + _MOST_ROWS), cell, done)
        engines = min(here, wanted, len(pieces))
        storage = Storage(folder)

        def spec_of(engine_start: int) -> WorkerSpec:
            return WorkerSpec(
                config=config,
                model=blueprint.model,
                chat_format=blueprint.chat_format,
                prompts=blueprint.prompts,
                storage=storage,
                fingerprint="",
                run=plan.MAX_RUNS - 1,
                engine_start=engine_start,
                device=device,
                distributed_executor_backend=placement.distributed_executor_backend,
                log_style=logs.current(),
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
        sampler = Sampler(actors, pieces, num_slots=engines, grid=cell, seconds=seconds, began=began)
        sampler.work(stop_requested)
        found = sampler.result(num_rows=pending)
        bytes_per_row, bytes_per_file = _bytes_of(Path(folder), config)
    return replace(
        found,
        device=device,
        bytes_per_row=bytes_per_row,
        bytes_per_file=bytes_per_file,
        end_seconds=time.monotonic() - sampler.ended,
    )


def _with_auto_actors(config: Config) -> Config:
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"num_actors": "auto"})})


def _bytes_of(folder: Path, config: Config) -> tuple[float, float]:
    """Bytes of a row, and of a file whatever its rows: from the sample's files, and one of all their rows."""
    paths = sorted(folder.glob("data/*.parquet"))
    table = pa.concat_tables(pq.read_table(path) for path in paths)
    together = len(parquet_bytes(table, make_table_format(config)))
    apart = sum(path.stat().st_size for path in paths)
    each = max(0.0, (apart - together) / (len(paths) - 1)) if len(paths) > 1 else 0.0
    return (together - each) / table.num_rows, each
