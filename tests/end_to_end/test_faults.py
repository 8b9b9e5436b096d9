"""What a job does when something goes wrong around it: real driver and actors, simulated engines, real S3."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from magpie_ray.coordinator.placement import Placement
from magpie_ray.dataset import manifest
from magpie_ray.dataset.build_record import read_build
from magpie_ray.dataset.run_records import read_runs
from magpie_ray.dataset.verify import verify
from magpie_ray.driver.actor_process import ShardProcess, other_nodes
from magpie_ray.driver.cluster_watch import ClusterWatch
from magpie_ray.driver.ray_actors import RayActors
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.events import Placed
from magpie_ray.worker.spec import EngineStart, WorkerSpec
from tests.end_to_end.cluster import BIN, RayCluster, connected
from tests.end_to_end.running_job import RunningJob, rows_settings
from tests.support.s3_server import FaultProxy, S3Server

pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]

STARTS = r"the actor of slot (\d+) starts on \S+, process (\d+)"
UP = r"the engine of slot (\d+) is up"


def row_ids(output: Path) -> list[int]:
    return sorted(pq.read_table(output / "data", columns=["row_id"])["row_id"].to_pylist())


def outcomes(output: Path) -> list[str]:
    return [run.outcome for run in read_runs(Storage(str(output)))]


def test_an_actor_with_a_spot_notice_commits_what_it_has_finished_and_another_takes_its_place(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    settings = rows_settings(output, 600, 300, "cluster.num_actors=1")
    with RunningJob("Paced(0.01)", *settings, env=ray_cluster.env) as job:
        [started] = job.wait_for(STARTS)
        job.wait_for(r"[1-9]\d*/600 rows")
        os.kill(int(started[2]), signal.SIGTERM)
        job.wait_for("the actor of slot 0 left: ")
        job.hurry()
        assert job.end() == 0, job.log
    assert row_ids(output) == list(range(600))
    storage = Storage(str(output))
    build = read_build(storage)
    assert build is not None
    files = manifest.read_committed(storage, build)
    assert any(file.stop % 300 for file in files), "no head of a partition was committed"


@pytest.fixture
def nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of nodes that come and go. Its head has one CPU, or as many as the test says."""
    num_cpus = getattr(request, "param", 1)
    head = {"num_cpus": num_cpus, "include_dashboard": False, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def test_a_node_that_comes_is_used_and_one_that_goes_is_missed_by_no_row(
    nodes: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    settings = rows_settings(output, 4000, 50, "engine.device=cpu")
    with RunningJob("Paced(0.01)", *settings, env={"RAY_ADDRESS": nodes.address}) as job:
        job.wait_for(UP)
        added = nodes.add_node(num_cpus=1)
        job.wait_for("room for another actor: slot 1")
        job.wait_for("the engine of slot 1 is up")
        nodes.remove_node(added, allow_graceful=False)
        job.wait_for("lost the actor of slot 1")
        nodes.add_node(num_cpus=1)
        # Of slot 1, or of another one: Ray may count a lost node for some seconds, and slot 1 pauses.
        job.wait_for(r"the engine of slot \d is up", times=3)
        job.hurry()
        assert job.end() == 0, job.log
    assert row_ids(output) == list(range(4000))


@pytest.mark.parametrize("nodes", [0], indirect=True)
def test_a_node_that_is_told_to_stop_commits_what_it_has_finished(nodes: Cluster, tmp_path: Path) -> None:
    """As a pod of KubeRay is: SIGTERM for `ray start --block`, which then drains the node.

    The only actor is on the node, so that the rows that the job tells of are its rows.
    """
    output = tmp_path / "build"
    settings = rows_settings(output, 2000, 500, "engine.device=cpu", "cluster.num_actors=1")
    command = [str(BIN / "ray"), "start", "--block", f"--address={nodes.address}", "--num-cpus=1"]
    with (
        subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as node,
        RunningJob("Paced(0.01)", *settings, env={"RAY_ADDRESS": nodes.address}) as job,
    ):
        try:
            job.wait_for(r"[1-9]\d*/2,000 rows")
            node.send_signal(signal.SIGTERM)
            job.wait_for("left: on notice")
            node.wait(timeout=40)
        finally:
            node.kill()
        nodes.add_node(num_cpus=1)
        job.hurry()
        assert job.end() == 0, job.log
    assert row_ids(output) == list(range(2000))
    storage = Storage(str(output))
    build = read_build(storage)
    assert build is not None
    assert any(file.stop % 500 for file in manifest.read_committed(storage, build)), "no head was committed"


@pytest.mark.parametrize(
    "after_steps",
    [
        pytest.param(0, id="every start fails", marks=pytest.mark.again),
        pytest.param(60, id="dies after a while"),
    ],
)
def test_a_broken_node_is_left_alone_and_others_do_its_work(
    nodes: Cluster, tmp_path: Path, after_steps: int
) -> None:
    output, broken = tmp_path / "build", nodes.add_node(num_cpus=1)
    settings = rows_settings(output, 600, 10, "engine.device=cpu", "cluster.num_actors=2")
    factory = f"OnNode({broken.node_id!r}, {after_steps}, Paced(0.01))"
    with RunningJob(factory, *settings, env={"RAY_ADDRESS": nodes.address}) as job:
        job.wait_for(rf"node \S+ \({broken.node_id[:8]}\) has failed 2 times: no actor starts there")
        job.hurry()
        assert job.end() == 0, job.log
        assert "ECC error" in job.log
    assert row_ids(output) == list(range(600))


class SaysWhere:
    """An actor that only says on which nodes its placement group is."""

    def __init__(self, *_: object) -> None: ...

    def run(self) -> Iterator[Placed]:
        own = ray.get_runtime_context().get_node_id()
        yield Placed(node_id=own, host="here", pid=os.getpid(), log_path="", others=other_nodes(own))


def test_an_engine_over_several_nodes_says_which_they_are(nodes: Cluster) -> None:
    for _ in range(2):
        nodes.add_node(num_cpus=1, num_gpus=1)
    placement = Placement(
        device="cuda", num_cpus=0, num_gpus=0, bundles=((("GPU", 1.0), ("CPU", 1.0)),) * 2, strategy="PACK"
    )
    with connected(cast(RayCluster, nodes)), ClusterWatch(may_grow=True) as watch:
        actors = RayActors(
            cast(WorkerSpec, "shared"),
            lambda start: EngineStart(engine_start=start),
            placement,
            watch,
            capacity_in=lambda view: 1,
            secrets=frozenset(),
            engine_factory=None,
            process=cast(type[ShardProcess], SaysWhere),
        )
        actors.start(0, engine_start=0)
        events = list[tuple[int, object]]()
        while not events:
            events += actors.poll(1.0)
        with_gpu = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
        actors.end(0)
    [(_, placed)] = events
    assert isinstance(placed, Placed)
    assert placed.nodes.keys() == with_gpu


def test_actors_that_find_no_place_are_waited_for_while_the_others_work(
    nodes: Cluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    settings = rows_settings(output, 300, 50, "engine.device=cpu", "cluster.num_actors=2")
    with RunningJob("Paced(0.01)", *settings, env={"RAY_ADDRESS": nodes.address}) as job:
        job.wait_for("the engine of slot 0 is up")
        assert job.end() == 0, job.log
        assert "the engine of slot 1 is up" not in job.log
    assert row_ids(output) == list(range(300))


def test_a_job_whose_cluster_is_gone_says_so_and_goes_on_on_another(nodes: Cluster, tmp_path: Path) -> None:
    output, address = tmp_path / "build", nodes.address
    settings = rows_settings(output, 600, 50, "engine.device=cpu")
    with RunningJob("Paced(0.01)", *settings, env={"RAY_ADDRESS": address}) as job:
        job.wait_for(r"[1-9]\d*/600 rows")
        nodes.head_node.kill_gcs_server(check_alive=False)
        nodes.head_node.kill_raylet(check_alive=False)
        assert job.end() == 1
        assert f"the Ray cluster at {address} is gone" in job.log, job.log
        assert "the same command resumes the build" in job.log
    assert outcomes(output) == ["failed"]
    with RunningJob("Paced(0)", *settings, env={"RAY_ADDRESS": "local"}) as job:
        assert job.end() == 0, job.log
    assert row_ids(output) == list(range(600))


def test_a_job_that_finds_no_place_at_all_says_what_it_waits_for_and_gives_up(
    nodes: Cluster, tmp_path: Path
) -> None:
    settings = rows_settings(
        tmp_path / "build",
        100,
        50,
        "engine.device=cuda",
        "cluster.num_actors=1",
        "cluster.start_timeout_seconds=6",
    )
    with RunningJob("Paced()", *settings, env={"RAY_ADDRESS": nodes.address}) as job:
        assert job.end() == 1
        assert "no actor could be placed for 6 s" in job.log
        assert "want 1 CPU and 1 GPU each" in job.log
    assert outcomes(tmp_path / "build") == ["failed"]


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.again),
        pytest.param(signal.SIGHUP, marks=pytest.mark.again),
    ],
)
def test_a_job_that_is_told_to_stop_while_ray_starts_is_interrupted(
    tmp_path: Path, number: signal.Signals
) -> None:
    settings = rows_settings(tmp_path / "build", 100, 50)
    with RunningJob("Paced()", *settings, env={"RAY_ADDRESS": "local"}) as job:
        job.wait_for("starting Ray on this machine")
        job.signal(number)
        assert job.end(seconds=30) == 3, job.log
        assert "interrupted: committed rows are kept, and the same command resumes" in job.log
    assert not (tmp_path / "build" / "_magpie" / "build.json").exists()


def test_an_engine_that_never_loads_ends_the_job_with_what_its_own_log_says(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    settings = rows_settings(tmp_path / "build", 100, 50, "cluster.num_actors=1")
    with RunningJob("NoRoom()", *settings, env=ray_cluster.env) as job:
        assert job.end(seconds=400) == 1  # three starts, with pauses between them
        message = job.log[job.log.index("error: ") :]
        assert "core initialization failed" in message
        assert "torch.OutOfMemoryError: tried to allocate 40.00 GiB" in message
        assert job.log.count("starts on") == 3


def test_a_partition_that_always_fails_ends_the_job_and_what_others_committed_is_kept(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    prompts = "system_prompt={good: [Be kind., 0.998], bad: [Drink poison., 0.002]}"
    settings = rows_settings(output, 1000, 10, "cluster.num_actors=2", prompts)
    with RunningJob("FailsOn('poison')", *settings, env=ray_cluster.env) as job:
        assert job.end() == 1
        assert "failed 3 times (cluster.max_failures_per_partition is 3" in job.log
        assert "illegal memory access" in job.log
    assert len(row_ids(output)) > 10
    assert outcomes(output) == ["failed"]


def test_an_actor_that_is_ten_times_slower_keeps_nobody_waiting(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    output = tmp_path / "build"
    settings = rows_settings(output, 300, 20, "cluster.num_actors=2")
    with RunningJob("Paced(0.01, slow=10)", *settings, env=ray_cluster.env) as job:
        assert job.end() == 0, job.log
    assert row_ids(output) == list(range(300))


@pytest.mark.parametrize("second", [pytest.param(800, marks=pytest.mark.again), 1000])
def test_two_drivers_on_one_output_share_the_work(
    ray_cluster: RayCluster, tmp_path: Path, second: int
) -> None:
    output = tmp_path / "build"
    jobs = []
    for num_rows in (800, second):
        settings = rows_settings(output, num_rows, 50, "cluster.num_actors=1")
        jobs.append(RunningJob("Paced(0.01)", *settings, env=ray_cluster.env))
        jobs[-1].wait_for("starts on")
    with jobs[0], jobs[1]:
        assert [job.end() for job in jobs] == [0, 0], [job.log for job in jobs]
    assert row_ids(output) == list(range(second))
    storage = Storage(str(output))
    assert verify(storage).ok
    build = read_build(storage)
    assert build is not None
    by_run = [file.run for file in manifest.read_committed(storage, build)]
    assert min(by_run.count(1), by_run.count(2)) > len(by_run) / 5


def test_a_second_driver_with_another_grid_is_refused(ray_cluster: RayCluster, tmp_path: Path) -> None:
    output = tmp_path / "build"
    with RunningJob("Paced(0.01)", *rows_settings(output, 300, 50), env=ray_cluster.env) as first:
        first.wait_for("starts on")
        with RunningJob("Paced()", *rows_settings(output, 300, 60), env=ray_cluster.env) as second:
            assert second.end() == 2
            assert "output.rows_per_partition: the build has 50, now 60" in second.log
        first.hurry()
        assert first.end() == 0, first.log
    assert row_ids(output) == list(range(300))


def s3_settings(proxy: FaultProxy, name: str, num_rows: int, *more: str) -> list[str]:
    output = f"s3://{proxy.server.bucket}/{name}"
    endpoint = f"output.storage_options={{endpoint_url: '{proxy.server.endpoint_url}'}}"
    return rows_settings(output, num_rows, 50, endpoint, *more)


def s3_rows(server: S3Server, name: str) -> list[int]:
    storage = Storage(f"s3://{server.bucket}/{name}", server.storage_options)
    assert verify(storage).ok
    build = read_build(storage)
    assert build is not None
    return [row for r in manifest.read_committed(storage, build) for row in range(r.start, r.stop)]


def test_generation_goes_on_while_the_store_throttles(ray_cluster: RayCluster, s3_server: S3Server) -> None:
    with FaultProxy(s3_server) as proxy:
        settings = s3_settings(proxy, "throttled", 1000, "cluster.num_actors=2")
        with RunningJob("Paced(0.005)", *settings, env=ray_cluster.env) as job:
            job.wait_for(UP)
            proxy.spoil(
                "PUT", *["503 SlowDown", "500 InternalError", "reset", "lost_reply"] * 8, part="/data/"
            )
            assert job.end() == 0, job.log
        assert not proxy.unused
    assert s3_rows(s3_server, "throttled") == list(range(1000))


@pytest.mark.parametrize(
    "fault",
    [
        "400 ExpiredToken",
        pytest.param("403 InvalidAccessKeyId", marks=pytest.mark.again),
        pytest.param("404 NoSuchBucket", marks=pytest.mark.again),
    ],
)
def test_refused_access_that_comes_back_costs_nothing(
    ray_cluster: RayCluster, s3_server: S3Server, fault: str
) -> None:
    name = fault.split()[1].lower()
    with FaultProxy(s3_server) as proxy:
        settings = s3_settings(proxy, name, 1000, "cluster.num_actors=1")
        with RunningJob("Paced(0.005)", *settings, env=ray_cluster.env) as job:
            job.wait_for(r"[1-9]\d*/1,000 rows")
            proxy.spoil("PUT", *[fault] * 6, part="/data/")
            proxy.wait_for(fault, 3)
            job.hurry()
            assert job.end() == 0, job.log
            assert "lost the actor" not in job.log
            assert s3_server.env["AWS_SECRET_ACCESS_KEY"] not in job.log
        assert not proxy.unused
    assert s3_rows(s3_server, name) == list(range(1000))


def test_a_job_that_is_told_to_stop_ends_in_time_though_no_request_to_the_store_is_answered(
    ray_cluster: RayCluster, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server) as proxy:
        settings = s3_settings(proxy, "stalled", 2000, "cluster.num_actors=1", "cluster.notice_seconds=5")
        with RunningJob("Paced(0.01)", *settings, env=ray_cluster.env) as job:
            job.wait_for(r"[1-9]\d*/2,000 rows")
            proxy.storm(1.0, ["stall"], seed=0)
            began = time.monotonic()
            job.signal(signal.SIGTERM)
            assert job.end() == 3, job.log
            assert time.monotonic() - began < 5 + 15  # on a busy machine; without the notice it takes minutes
            assert "the same command again to resume" in job.log
        proxy.calm()
        with RunningJob("Paced(0)", *settings, env=ray_cluster.env) as job:
            assert job.end() == 0, job.log
    assert s3_rows(s3_server, "stalled") == list(range(2000))


def test_a_store_that_creates_twice_is_refused_unless_a_single_writer_is_promised(
    ray_cluster: RayCluster, s3_server: S3Server
) -> None:
    with FaultProxy(s3_server, conditions="ignored") as proxy:
        settings = s3_settings(proxy, "careless", 500, "cluster.num_actors=2")
        with RunningJob("Paced(0)", *settings, env=ray_cluster.env) as job:
            assert job.end() == 2
            assert "does not support exclusive creation" in job.log
            assert "output.single_writer: true" in job.log
        with RunningJob("Paced(0.02)", *settings, "output.single_writer=true", env=ray_cluster.env) as job:
            job.wait_for(r"[1-9]\d*/500 rows")
            job.signal(signal.SIGKILL)
            job.end()
        with RunningJob("Paced(0)", *settings, "output.single_writer=true", env=ray_cluster.env) as job:
            assert job.end() == 0, job.log
            assert "If it is still at work, end one of the two" in job.log
    assert s3_rows(s3_server, "careless") == list(range(500))
