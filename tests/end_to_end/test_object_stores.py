"""Builds on Azure and Google Cloud Storage: real driver, actors and clients, simulated engines.

Everything that a user does with an output is done on each: generate, stop, resume, two drivers at once,
verify, status, report, show, export.
"""

import json
import signal
import uuid
from pathlib import Path

import pytest

from magpie_ray.dataset.run_records import read_runs
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.end_to_end.running_job import RunningJob, rows_settings
from tests.support.azure_server import AzureServer
from tests.support.gcs_server import GcsServer

pytestmark = pytest.mark.end_to_end

_ROWS = 600


@pytest.fixture(params=["azure", pytest.param("gcs", marks=pytest.mark.again)])
def server(request: pytest.FixtureRequest) -> AzureServer | GcsServer:
    return request.getfixturevalue(f"{request.param}_server")  # type: ignore[no-any-return]


def test_a_build_is_stopped_resumed_by_two_drivers_and_read(
    server: AzureServer | GcsServer, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    output = f"{server.url}/{uuid.uuid4().hex}"
    options = f"output.storage_options={json.dumps(server.storage_options)}"
    settings = rows_settings(output, _ROWS, 20, "cluster.num_actors=1", options)
    with RunningJob("Paced(0.01)", *settings, env=ray_cluster.env) as job:
        job.wait_for(rf"[1-9]\d*/{_ROWS} rows", seconds=300)
        job.signal(signal.SIGTERM)
        assert job.end() == 3, job.log
    with (
        RunningJob("Paced(0.002)", *settings, env=ray_cluster.env) as one,
        RunningJob("Paced(0.002)", *settings, env=ray_cluster.env) as other,
    ):
        one.wait_for("the engine of slot 0 is up", seconds=300)
        other.wait_for("the engine of slot 0 is up", seconds=300)
        one.hurry()
        other.hurry()
        assert (one.end(), other.end()) == (0, 0), one.log + other.log
    storage = Storage(output, server.storage_options)
    assert [run.outcome for run in read_runs(storage)] == ["interrupted", "done", "done"]

    def read(command: str, *arguments: str) -> str:
        done = magpie_ray(command, output, *arguments, env=server.env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    read("verify")
    assert json.loads(read("status", "--json"))["rows"] == _ROWS
    read("report")
    assert "user" in read("show")
    exported = tmp_path / "rows.jsonl"
    read("export", str(exported), "--to", "messages")
    rows = exported.read_text().splitlines()
    assert (len(rows), len(set(rows))) == (_ROWS, _ROWS)
