"""A preview of a build: its first rows and rejected messages, made by one engine here and thrown away.

Invariant: nothing is written to the build's output.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.parquet as pq

from magpie_ray.config.loading import JobConfig
from magpie_ray.dataset.reader import Record
from magpie_ray.dataset.rejects import Reject, read_rejects
from magpie_ray.driver.engines_here import engines_here
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.preflight.target import look_at
from magpie_ray.types import Partition
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.utils.text import counted
from magpie_ray.worker.spec import EngineFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """rows: accepted, in order. rejects: a few messages for each reason. problem: why rows are missing."""

    rows: Sequence[Record]
    rejects: Sequence[Reject]
    problem: str = ""


def take_preview(config: JobConfig, num_rows: int, *, engine_factory: EngineFactory | None = None) -> Preview:
    """Make the first rows of the build, as an existing build does not have them: with another engine seed.

    Raises what `generate` raises before anything starts, GenerationFailedError when the engine fails,
    InterruptedJobError when told to stop.
    """
    build_spec = look_at(config).build_spec
    rows = Partition(start=0, stop=min(num_rows, build_spec.config.num_rows))
    with engines_here(build_spec, engine_factory) as here:
        sampler = here.sampler([rows], engines=1, grid=rows.num_rows, seconds=math.inf, began=awake_seconds())
        log.info("loading %s for %s", build_spec.model.name, counted(rows.num_rows, "row"))
        problem = ""
        try:
            sampler.work(here.stop_requested)
        except (AcceptRateError, RowExhaustedError) as exc:
            problem = str(exc)
        found = [row for path in here.files() for row in pq.read_table(path).to_pylist()]
        return Preview(rows=found, rejects=list(read_rejects(here.storage)), problem=problem)
