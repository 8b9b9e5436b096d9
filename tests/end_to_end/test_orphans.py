"""Engines in child processes, as those over several GPUs are: what a killed process leaves, on real vLLM."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from magpie_ray import generate, load_config
from magpie_ray.coordinator.run import BuildResult
from magpie_ray.driver import orphan_watchdog
from tests.end_to_end.cluster import RayCluster, connected

# Ray's own client code warns of resources it closes late.
pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]

_ROWS = 400
# How the actors of these tests are told from all others on this machine.
_OURS = {"MAGPIE_RAY_TEST_OF": f"orphans-{os.getpid()}"}


@pytest.fixture(scope="module", autouse=True)
def connection(ray_cluster: RayCluster) -> Iterator[None]:
    """This process as a driver, whose actors hold engines with an EngineCore process and a worker process."""
    with connected(ray_cluster, VLLM_ENABLE_V1_MULTIPROCESSING="1", **_OURS):
        yield


@dataclass(frozen=True, kw_only=True)
class EngineProcesses:
    """An actor, its engine's core, and everything the actor has started."""

    actor: psutil.Process
    core: psutil.Process
    children: list[psutil.Process]


def is_core(process: psutil.Process) -> bool:
    try:
        return "EngineCore" in process.name() and _OURS.items() <= process.environ().items()
    except psutil.Error:
        return False


@retry(stop=stop_after_delay(180), wait=wait_fixed(0.2), retry=retry_if_result(lambda found: found is None))
def core_that_runs(*, other_than: psutil.Process | None = None) -> psutil.Process | None:
    cores = (process for process in psutil.process_iter() if is_core(process) and process != other_than)
    return next(cores, None)


@retry(stop=stop_after_delay(180), wait=wait_fixed(0.05), retry=retry_if_result(lambda done: not done))
def first_file_of(output: Path) -> bool:
    return any(output.glob("data/**/*.parquet"))


def kill_when_it_generates(
    output: Path, victim: Callable[[EngineProcesses], psutil.Process]
) -> EngineProcesses:
    """Kill a process of the engine once a file is committed, and wait for the engine's successor."""
    first_file_of(output)
    core = core_that_runs()
    assert core is not None
    assert orphan_watchdog.MARK in core.environ()
    actor = core.parent()
    assert actor is not None
    engine = EngineProcesses(actor=actor, core=core, children=actor.children(recursive=True))
    victim(engine).send_signal(signal.SIGKILL)
    core_that_runs(other_than=core)
    return engine


def build(
    output: Path, *settings: str, victim: Callable[[EngineProcesses], psutil.Process]
) -> tuple[BuildResult, EngineProcesses]:
    """A build by one actor, and the first engine it had, of which `victim` was killed on the way."""
    config = load_config(
        None,
        [
            *(f"num_rows={_ROWS}", "n_turns=1", "engine.device=cpu", "output.rows_per_partition=20"),
            *("cluster.num_actors=1", "cluster.start_timeout_seconds=150", f"output.path={output}"),
            *settings,
        ],
    )
    with ThreadPoolExecutor(1) as executor:
        killing = executor.submit(kill_when_it_generates, output, victim)
        result = generate(config)
        return result, killing.result()


def row_ids(output: Path) -> list[int]:
    return sorted(pq.read_table(output / "data", columns=["row_id"])["row_id"].to_pylist())


def assert_nothing_is_left_of(engine: EngineProcesses) -> None:
    assert len(engine.children) >= 3  # the core, its worker, Python's resource tracker
    _, alive = psutil.wait_procs([engine.actor, *engine.children], timeout=10)
    assert not alive


def test_a_killed_actor_leaves_nothing_of_its_engine_and_its_successor_ends_the_build(
    tmp_path: Path,
) -> None:
    output = tmp_path / "build"
    result, killed = build(output, victim=lambda engine: engine.actor)
    assert result.num_rows == _ROWS
    assert row_ids(output) == list(range(_ROWS))
    assert_nothing_is_left_of(killed)


def test_an_engine_whose_core_is_killed_is_replaced_at_once_and_the_build_ends(tmp_path: Path) -> None:
    output = tmp_path / "build"
    result, killed = build(output, victim=lambda engine: engine.core)
    assert result.num_rows == _ROWS
    assert row_ids(output) == list(range(_ROWS))
    assert_nothing_is_left_of(killed)
