"""The driver on real Ray processes, with simulated engines where the model does not matter."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
import ray
from ray.util import placement_group_table

from magpie_ray import generate, load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.actors import Loss, Lost
from magpie_ray.coordinator.placement import Placement
from magpie_ray.dataset.run_records import read_runs
from magpie_ray.driver.actor_process import ShardProcess
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.engine.simulated.engine import SimulatedEngine
from magpie_ray.errors import GenerationFailedError, PreflightError, RowExhaustedError
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.spec import EngineFactory, EngineStart, WorkerSpec
from tests.end_to_end.cluster import ROOT, RayCluster, connected, run_command
from tests.support.engines import Factory, ScriptedEngine

# Ray's own client code warns of resources it closes late.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module")
def connection(ray_cluster: RayCluster) -> Iterator[None]:
    with connected(ray_cluster):
        yield


def config(output: Path, *overrides: str) -> Config:
    settings = ["num_rows=300", "n_turns=2", "engine.device=cpu", "output.rows_per_partition=25"]
    return load_config(None, [*settings, "cluster.num_actors=2", f"output.path={output}", *overrides])


def row_ids(output: Path) -> list[int]:
    return sorted(pq.read_table(output / "data", columns=["row_id"])["row_id"].to_pylist())


@dataclass(frozen=True)
class DiesOnce:
    """An engine whose process kills itself after some steps, unless the marker file says it has been done."""

    marker: Path
    after_steps: int = 40
    inner: Factory = field(default_factory=ScriptedEngine)

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        engine = self.inner(spec)
        step = engine.step

        def step_or_die():  # type: ignore[no-untyped-def]
            if engine.stats().steps >= self.after_steps:
                try:
                    self.marker.touch(exist_ok=False)
                except FileExistsError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return step()

        engine.step = step_or_die  # type: ignore[method-assign]
        return engine


@dataclass(frozen=True)
class NeverStarts:
    """An engine that can't be made."""

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        raise RuntimeError("no room for the weights")


def test_an_actor_that_is_killed_is_replaced_and_no_row_is_lost_or_doubled(
    connection: None, tmp_path: Path
) -> None:
    output, marker = tmp_path / "build", tmp_path / "died"
    result = generate(config(output), engine_factory=DiesOnce(marker))
    assert marker.exists()
    assert result.num_rows == 300
    assert row_ids(output) == list(range(300))


def test_an_engine_that_never_starts_ends_the_job_with_its_cause(connection: None, tmp_path: Path) -> None:
    with pytest.raises(GenerationFailedError, match="no room for the weights"):
        generate(config(tmp_path / "build"), engine_factory=NeverStarts())


class NeverBegins(ShardProcess):
    """An actor whose process fails before it can say where it is."""

    def __init__(self, shared: WorkerSpec, start: EngineStart, engine_factory: EngineFactory | None) -> None:
        raise OSError("no space left on this node")


def test_the_node_of_an_actor_that_fails_before_it_can_say_so_is_known(
    connection: None, tmp_path: Path
) -> None:
    [node] = ray.nodes()
    with ClusterWatch(may_grow=False) as watch:
        actors = RayActors(
            cast(WorkerSpec, "shared"),
            lambda start: EngineStart(engine_start=start),
            Placement(device="cpu", num_cpus=1, num_gpus=0),
            watch,
            capacity_in=lambda view: 1,
            secrets=frozenset(),
            engine_factory=None,
            process=NeverBegins,
        )
        assert actors.nodes() == {node["NodeID"]}
        actors.start(0, engine_start=0)
        events = list[tuple[int, object]]()
        while not events:
            events += actors.poll(1.0)
        actors.end(0)
    [(_, lost)] = events
    assert isinstance(lost, Lost)
    assert (lost.node_id, lost.loss) == (node["NodeID"], Loss.FAILED)
    assert lost.host
    assert "no space left on this node" in lost.cause


def test_a_row_that_is_always_rejected_ends_the_job_with_reason_and_example(
    connection: None, tmp_path: Path
) -> None:
    with pytest.raises(RowExhaustedError, match=r"rejected 3 times.*\n.* empty, "):
        generate(
            config(tmp_path / "build", "acceptance.max_attempts=3"),
            engine_factory=ScriptedEngine(reject_every=1),
        )


def test_an_engine_over_several_gpus_gets_a_placement_group_that_is_given_back(
    connection: None, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    gpus = ["engine.device=cuda", "engine.tensor_parallel_size=2", "cluster.num_actors=auto"]
    result = generate(config(output, *gpus), engine_factory=ScriptedEngine())
    assert result.num_rows == 300
    groups = [group for group in placement_group_table().values() if group["bundles"][0].get("GPU") == 2]
    assert len(groups) == 2
    assert {group["strategy"] for group in groups} == {"STRICT_PACK"}
    assert {group["state"] for group in groups} == {"REMOVED"}


def test_an_engine_that_the_cluster_can_not_hold_is_refused_before_anything_starts(
    connection: None, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    gpus = ["engine.device=cuda", "engine.tensor_parallel_size=8", "cluster.num_actors=auto"]
    with pytest.raises(PreflightError, match=r"needs 8 GPUs.*has 4 GPUs.*set cluster\.num_actors"):
        generate(config(output, *gpus))
    assert not (output / "_magpie" / "build.json").exists()


_JOB_WITH_SIMULATED_ENGINES = """
import functools
from magpie_ray.cli.program import main
from magpie_ray.driver import run_build
from tests.support.engines import ScriptedEngine

run_build.run_job = functools.partial(run_build.run_job, engine_factory=ScriptedEngine(reject_every=10))
main()
"""


def test_json_logs_are_one_object_a_line_whatever_is_told(ray_cluster: RayCluster, tmp_path: Path) -> None:
    output = tmp_path / "build"
    job = [
        "generate",
        "jobs/configs/demo.yaml",
        "num_rows=200",
        "cluster.num_actors=2",
        f"output.path={output}",
    ]
    command = [sys.executable, "-c", _JOB_WITH_SIMULATED_ENGINES, *job, "--json-logs"]
    env = {**os.environ, **ray_cluster.env, "PYTHONPATH": str(ROOT)}
    attempts = "acceptance.max_attempts="
    done, failed = (
        run_command([*command, f"{attempts}100"], env=env),
        run_command([*command, "nonsense=1"], env=env),
    )
    assert (done.returncode, done.stdout, failed.returncode, failed.stdout) == (0, "", 2, "")
    told = [json.loads(line) for line in (done.stderr + failed.stderr).splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in told)
    progress = [record for record in told if "rows_per_second" in record]
    assert progress[-1]["rows"] == progress[-1]["committed_rows"] == 200
    assert [record["new_rows"] for record in told if record["message"] == "the build is complete"] == [200]
    assert "nonsense" in told[-1]["message"]
    assert told[-1]["level"] == "ERROR"


@pytest.mark.parametrize(
    "stop_signal", [pytest.param(signal.SIGINT, marks=pytest.mark.again), signal.SIGTERM]
)
def test_a_job_told_to_stop_exits_with_3_and_the_same_command_finishes_it(
    ray_cluster: RayCluster, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    output = tmp_path / "build"
    settings = ["num_rows=600", "output.rows_per_partition=100", "cluster.num_actors=2"]
    # With one message in ten rejected, a row of four messages fails eight times in every tenth build or so.
    settings.append("acceptance.max_attempts=100")
    job = ["generate", "jobs/configs/demo.yaml", *settings, f"output.path={output}"]
    command = [sys.executable, "-c", _JOB_WITH_SIMULATED_ENGINES, *job]
    env = {**os.environ, **ray_cluster.env, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "is up after" in line:
                running.send_signal(stop_signal)
                break
        told = running.communicate(timeout=120)[1]
    assert running.returncode == 3, told
    assert "run the same command again to resume" in told
    assert not (output / "_SUCCESS").exists()
    finished = run_command(command, env=env)
    assert finished.returncode == 0, finished.stderr
    assert row_ids(output) == list(range(600))
    assert [run.outcome for run in read_runs(Storage(str(output)))] == ["interrupted", "done"]


_UNDER_UV = """
import ray
from magpie_ray.driver.connect import ray_session
with ray_session("local"):
    print(ray.get(ray.remote(lambda: __import__("sys").executable).remote(), timeout=90))
"""


def test_under_uv_run_the_actors_start_with_the_python_of_the_driver(tmp_path: Path) -> None:
    """Ray finds `uv run` by the names of its parents; here a shell of that name runs the file `run`."""
    (tmp_path / "run").write_text('"$@"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "theirs"\nversion = "1"\n')
    done = subprocess.run(
        ["uv", "run", sys.executable, "-c", _UNDER_UV],
        executable="/bin/bash",
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == sys.executable


_SIGNALLED = """
import os, signal
from magpie_ray.driver.connect import ray_session

def signalled():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 60)
    except KeyboardInterrupt:
        print("heard", flush=True)

signal.signal(signal.SIGTERM, signal.default_int_handler)
with ray_session("local"):
    signalled()
signalled()
"""


def test_sigterm_is_heard_before_and_after_a_job_listens_for_it() -> None:
    """Ray's C++ code has a handler of its own, which aborts the process; its shutdown removes all."""
    done = run_command([sys.executable, "-c", _SIGNALLED], env={"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout.split()) == (0, ["heard", "heard"]), done.stderr
