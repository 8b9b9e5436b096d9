"""What the engine benchmark finds and no clock is needed for: steps of real vLLM."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.benchmarks.drawn_engine import DrawnEngine, DrawnEngineFactory
from jobs.benchmarks.engine import bare_loop, lockstep, make_spec, worker_loop
from magpie_ray.worker.spec import WorkerSpec

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

# Before torch is imported, which takes all cores otherwise: other tests run on them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOTS, ROWS = 8, 80


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    return make_spec(str(tmp_path_factory.mktemp("build")), rows=ROWS, turns=1, slots=SLOTS)


@pytest.fixture(scope="module")
def engine(spec: WorkerSpec) -> Iterator[DrawnEngine]:
    engine = DrawnEngineFactory()(spec)
    yield engine
    engine.timed.engine_core.shutdown()


def test_the_workers_loop_takes_no_more_steps_than_a_bare_loop_and_lockstep_many_more(
    engine: DrawnEngine, spec: WorkerSpec
) -> None:
    bare, ours = bare_loop(engine, spec, rows=ROWS), worker_loop(engine, spec, rows=ROWS)
    in_batches = lockstep(engine, spec, rows=ROWS, batch=2 * SLOTS)
    assert bare.tokens == ours.tokens == in_batches.tokens
    # Which messages are the last is a matter of order: a few steps either way.
    assert ours.steps < 1.05 * bare.steps
    assert ours.idle == 0
    assert in_batches.steps > 1.3 * ours.steps
    assert (ours.preemptions, ours.recomputed_tokens) == (0, 0)


def test_rows_of_drawn_lengths_are_rows_like_any_others(spec: WorkerSpec) -> None:
    """Written by the worker above: none was rejected, and none is missing."""
    import pyarrow.parquet as pq

    table = pq.read_table(Path(spec.build_spec.config.output.path) / "data")
    assert table.num_rows == ROWS
    assert set(table["attempt"].to_pylist()) == {1}
