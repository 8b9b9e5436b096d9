"""What the benchmark of answers finds and no clock is needed for: steps and cached prompts of real vLLM."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.benchmarks.answers import bare_loop, make_spec, our_loop
from jobs.benchmarks.drawn_engine import DrawnEngine, DrawnEngineFactory

# vLLM and torch warn of their own deprecations while they are imported and started.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore")]

# Before torch is imported, which takes all cores otherwise: other tests run on them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SLOTS, ROWS, EACH = 8, 16, 5


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DrawnEngine]:
    folder = tmp_path_factory.mktemp("first")
    engine = DrawnEngineFactory()(make_spec(folder, rows=ROWS, kind="long", slots=SLOTS))
    yield engine
    engine.timed.engine_core.shutdown()


@pytest.mark.parametrize(("kind", "at_least"), [("long", 0.95), ("short", 0.4)])
def test_answers_to_a_row_read_its_prompt_once_and_take_no_more_steps_than_a_bare_loop(
    engine: DrawnEngine, tmp_path: Path, kind: str, at_least: float
) -> None:
    spec = make_spec(tmp_path, rows=ROWS, kind=kind, slots=SLOTS, each=EACH)
    bare, ours = (loop(engine, spec, rows=ROWS) for loop in (bare_loop, our_loop))
    assert ours.measured.tokens == bare.measured.tokens
    assert ours.measured.steps <= 1.01 * bare.measured.steps + 1
    assert ours.measured.idle <= 0.01 * SLOTS * ours.measured.steps
    # All that whole blocks can hold: in short prompts, that is less.
    assert ours.found == ours.in_whole_blocks >= at_least
    rows = pq.read_table(tmp_path / "out" / "data").to_pylist()
    assert sorted(row["row_id"] for row in rows) == list(range(ROWS))
    # The shortest have two tokens, so some are alike by chance.
    assert all(len(row["responses"]) == EACH and len(set(row["responses"])) > 1 for row in rows)
