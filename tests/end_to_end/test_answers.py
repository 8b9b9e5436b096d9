"""From instructions to answers on real vLLM, Ray and S3: a build, a pass over it, the pass over more rows."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.end_to_end.test_submitted_job import CONFIG, download
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.end_to_end


def test_a_grown_build_is_answered_four_times_a_row_and_each_row_once(
    s3_server: S3Server, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    rows, output = (f"s3://{s3_server.bucket}/answers/{name}" for name in ("rows", "answers"))
    (tmp_path / "answers.yaml").write_text(
        f"source: {{path: '{rows}'}}\nn: 4\n"
        "sampling: {assistant: {temperature: 0.8, max_tokens: 48}}\n"
        "engine: {device: cpu, max_model_len: 512, gpu_memory_utilization: 0.06}\n"
        f"output: {{path: '{output}', rows_per_partition: 8}}\ncluster: {{num_actors: 2}}\n"
    )

    def command(name: str, *arguments: str, code: int = 0) -> str:
        done = magpie_ray(name, *arguments, env=ray_cluster.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    made = ("only_instruction=true", "n_turns=1", "seed=5", "output.rows_per_partition=8")
    command("generate", CONFIG, *made, f"output.path={rows}", "num_rows=24", "cluster.num_actors=1")
    command("answer", str(tmp_path / "answers.yaml"))
    command("generate", CONFIG, *made, f"output.path={rows}", "num_rows=32", "cluster.num_actors=1")
    assert "32 rows" in command("answer", str(tmp_path / "answers.yaml"))
    asked, answered = (
        sorted(
            pq.read_table(download(s3_server, place, tmp_path / name) / "data").to_pylist(),
            key=lambda row: int(row["row_id"]),
        )
        for place, name in ((rows, "rows"), (output, "answers"))
    )
    assert [row["row_id"] for row in answered] == list(range(32))
    assert [row["instruction"] for row in answered] == [row["instruction"] for row in asked]
    assert all(len(row["responses"]) == 4 and all(row["responses"]) for row in answered)
    assert any(len(set(row["responses"])) > 1 for row in answered)
    command("verify", output)
    status = json.loads(command("status", output, "--json"))
    assert (status["rows"], status["complete"]) == (32, True)
    exported = tmp_path / "all.jsonl"
    command("export", output, str(exported), "--to", "messages")
    assert len(exported.read_text().splitlines()) == 128
    # The command of another job says which one it is.
    assert "magpie-ray answer" in command("generate", str(tmp_path / "answers.yaml"), code=2)
