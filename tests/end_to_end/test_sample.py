"""`plan --sample` on real Ray and vLLM: what it foretells, and what it leaves behind, which is nothing."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from magpie_ray import generate, load_config
from magpie_ray.config.schema import Config
from magpie_ray.driver.preview import take_preview
from magpie_ray.driver.sample import take_sample
from magpie_ray.errors import GenerationFailedError, PreflightError
from magpie_ray.monitoring.status import read_status
from magpie_ray.planning.estimate import Workload, from_sample
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import ROOT, RayCluster, connected
from tests.support.engines import ScriptedEngine
from tests.support.inputs import write_table

pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module", autouse=True)
def connection(ray_cluster: RayCluster) -> Iterator[None]:
    """Where a process is connected already, a sample is taken there."""
    with connected(ray_cluster):
        yield


def demo(output: Path, *overrides: str) -> Config:
    return load_config(ROOT / "jobs/configs/demo.yaml", [f"output.path={output}", *overrides])


def test_a_sample_of_the_demo_foretells_its_tokens_and_bytes(tmp_path: Path) -> None:
    """The sample is a part of a larger build; the demo is then made as it is."""
    sample = take_sample(demo(tmp_path / "demo", "num_rows=100000", "cluster.num_actors=2"), 6.0)
    assert not sample.whole
    assert not (tmp_path / "demo").exists()
    result = generate(demo(tmp_path / "demo", "cluster.num_actors=2"))
    found = from_sample(sample, Workload(rows=1000, files=16, num_actors=2, gpus_per_actor=0))
    status = read_status(Storage(str(tmp_path / "demo")))
    assert found.tokens.low == pytest.approx(status.tally.tokens, rel=0.15)
    assert result.tokens == status.tally.tokens
    assert len(status.records) == 16
    assert found.size_bytes.low == pytest.approx(status.size, rel=0.15)


def test_a_small_build_is_sampled_whole_and_nothing_is_left(tmp_path: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    config = demo(tmp_path / "out", "num_rows=60", "output.rows_per_partition=20", "cluster.num_actors=2")
    sample = take_sample(config, 600.0, engine_factory=ScriptedEngine(reject_every=40))
    assert sample.whole
    assert (sample.rows, sample.engines, sample.device) == (60, 2, "cpu")
    assert sample.attempts >= sample.rows
    assert not (tmp_path / "out").exists()
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("magpie-ray-sample")]


class NeverStarts:
    def __call__(self, spec: object) -> ScriptedEngine:
        raise RuntimeError("no room for the weights")


def test_an_engine_that_does_not_start_ends_the_sample_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(GenerationFailedError, match="no room for the weights"):
        take_sample(demo(tmp_path / "out", "cluster.num_actors=1"), 5.0, engine_factory=NeverStarts())


def test_of_a_complete_build_there_is_no_sample(tmp_path: Path) -> None:
    config = demo(tmp_path / "out", "num_rows=20", "cluster.num_actors=1")
    generate(config, engine_factory=ScriptedEngine())
    with pytest.raises(PreflightError, match="nothing is left to take a sample of"):
        take_sample(config, 5.0, engine_factory=ScriptedEngine())


def test_a_preview_shows_the_first_rows_and_rejects_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    found = take_preview(demo(tmp_path / "out"), 20, engine_factory=ScriptedEngine(reject_every=5))
    assert [row["row_id"] for row in found.rows] == list(range(20))
    assert "empty" in {reject["reason"] for reject in found.rejects}
    assert not found.problem
    assert not (tmp_path / "out").exists()
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("magpie-ray-preview")]


def test_a_preview_of_rows_with_inputs_shows_them(tmp_path: Path) -> None:
    write_table(tmp_path / "in.csv", [{"system_prompt": f"Speak as user {number}."} for number in range(3)])
    config = demo(tmp_path / "out", f"inputs.path={tmp_path / 'in.csv'}")
    found = take_preview(config, 4, engine_factory=ScriptedEngine())
    assert [row["input_id"] for row in found.rows] == [0, 1, 2, 0]


def test_a_preview_of_rows_that_are_never_accepted_shows_what_was_rejected_and_why(tmp_path: Path) -> None:
    config = demo(tmp_path / "out", "acceptance.max_attempts=3")
    found = take_preview(config, 2, engine_factory=ScriptedEngine(reject_every=1))
    assert "was rejected 3 times" in found.problem
    assert found.rejects
