"""A preview of a build: its first rows and rejected messages, made by one engine here and thrown away.

Invariant: nothing is written to the build's output.
"""

import logging
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import place
from magpie_ray.dataset.layout import DATA_FILES
from magpie_ray.dataset.reader import Record
from magpie_ray.dataset.rejects import Reject, read_rejects
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.connect import ray_session, stop_signals
from magpie_ray.driver.sample import make_actors
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.planning.sampler import Sampler
from magpie_ray.preflight import checks
from magpie_ray.preflight.inputs import copy_inputs
from magpie_ray.preflight.target import look_at
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.worker.spec import EngineFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """rows: accepted, in order. rejects: a few messages for each reason. problem: why rows are missing."""

    rows: Sequence[Record]
    rejects: Sequence[Reject]
    problem: str = ""


def take_preview(config: Config, num_rows: int, *, engine_factory: EngineFactory | None = None) -> Preview:
    """Make the first rows of the build, as an existing build does not have them: with another engine seed.

    Raises what `generate` raises before anything starts, GenerationFailedError when the engine fails,
    InterruptedJobError when told to stop.
    """
    build_spec = look_at(config).build_spec
    config = build_spec.config
    rows = Partition(start=0, stop=min(num_rows, config.num_rows))
    if engine_factory is None:
        checks.check_engine_is_installed()
    with (
        tempfile.TemporaryDirectory(prefix="magpie-ray-preview-") as folder,
        ray_session("local"),
        stop_signals() as stop_requested,
        ClusterWatch(may_grow=False) as watch,
    ):
        storage = Storage(folder)
        if build_spec.inputs:
            copy_inputs(config, build_spec.inputs, storage)
        placement = place(config, watch.view.resources)
        sampler = Sampler(
            make_actors(build_spec, storage, placement, watch, 1, engine_factory),
            [rows],
            num_slots=1,
            grid=rows.num_rows,
            seconds=math.inf,
            began=awake_seconds(),
            start_timeout_seconds=config.cluster.start_timeout_seconds,
            stall_timeout_seconds=config.cluster.stall_timeout_seconds,
        )
        log.info("loading %s for %d rows", build_spec.model.name, rows.num_rows)
        problem = ""
        try:
            sampler.work(stop_requested)
        except (AcceptRateError, RowExhaustedError) as exc:
            problem = str(exc)
        found = [
            row for path in sorted(Path(folder).glob(DATA_FILES)) for row in pq.read_table(path).to_pylist()
        ]
        return Preview(rows=found, rejects=list(read_rejects(storage)), problem=problem)
