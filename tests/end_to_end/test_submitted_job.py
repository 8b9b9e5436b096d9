"""The main job as users run it: `ray job submit`, real vLLM, Parquet on a real S3 server."""

import json
import re
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.end_to_end.cluster import BIN, RayCluster, magpie_ray, run_command
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.end_to_end

CONFIG = "jobs/configs/demo.yaml"
SETTINGS = ["n_turns=3", "output.rows_per_partition=50", "cluster.num_actors=2"]


def generate(cluster: RayCluster, output: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    command = ["generate", CONFIG, *SETTINGS, f"output.path={output}", *overrides]
    return magpie_ray(*command, env=cluster.env)


@retry(
    stop=stop_after_delay(60),
    wait=wait_fixed(1),
    retry=retry_if_result(lambda done: "No available agent" in done.stderr),
    retry_error_callback=lambda state: state.outcome and state.outcome.result(),
)
def submitted(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The command, again while a cluster that has just started can take no job yet."""
    return run_command(command, env=env)


@pytest.fixture(scope="module")
def output(s3_server: S3Server, ray_cluster: RayCluster) -> str:
    """A finished build of 105 rows, submitted as a Ray job."""
    url = f"s3://{s3_server.bucket}/submitted/build"
    entry = ["python", "jobs/generate.py", CONFIG, "num_rows=105", f"output.path={url}", *SETTINGS]
    submit = [str(BIN / "ray"), "job", "submit", "--address", ray_cluster.dashboard]
    submit += ["--working-dir", ".", "--runtime-env", "jobs/runtime_env.yaml", "--", *entry]
    done = submitted(submit, ray_cluster.env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "105 rows in" in done.stdout
    return url


def objects(s3_server: S3Server, url: str) -> dict[str, tuple[str, Any]]:
    """Keys below the output, each with what changes when it is written again."""
    prefix = url.removeprefix(f"s3://{s3_server.bucket}/") + "/"
    listed = s3_server.client().list_objects_v2(Bucket=s3_server.bucket, Prefix=prefix)["Contents"]
    return {entry["Key"].removeprefix(prefix): (entry["ETag"], entry["LastModified"]) for entry in listed}


def download(s3_server: S3Server, url: str, folder: Path) -> Path:
    """A copy of data/ on the local disk, fetched without fsspec."""
    prefix = url.removeprefix(f"s3://{s3_server.bucket}/") + "/"
    for key in objects(s3_server, url):
        if key.startswith("data/"):
            target = folder / key
            target.parent.mkdir(parents=True, exist_ok=True)
            body = s3_server.client().get_object(Bucket=s3_server.bucket, Key=prefix + key)["Body"]
            target.write_bytes(body.read())
    return folder


def test_a_submitted_job_writes_exactly_the_rows_asked_for(
    s3_server: S3Server, output: str, tmp_path: Path
) -> None:
    keys = objects(s3_server, output)
    assert [key for key in keys if key.startswith("data/")] == [
        "data/part-000000000000.parquet",
        "data/part-000000000050.parquet",
        "data/part-000000000100.parquet",
    ]
    assert {"_SUCCESS", "_magpie/build.json", "_magpie/manifest.json", "_magpie/runs/000001.json"} <= set(
        keys
    )
    folder = download(s3_server, output, tmp_path)
    rows = duckdb.sql(f"select * from read_parquet('{folder}/data/*.parquet') order by row_id").fetchall()
    assert [row[0] for row in rows] == list(range(105))


def test_the_report_lies_beside_the_data(s3_server: S3Server, output: str) -> None:
    body = s3_server.client().get_object(Bucket=s3_server.bucket, Key="submitted/build/_magpie/report.html")[
        "Body"
    ]
    page = body.read().decode()
    assert re.search(r"<dt>Rows</dt>\s*<dd>105</dd>\s*<dd>all rows of the build</dd>", page)
    assert "When each actor was starting, working, lost or left" in page
    assert "Tokens per second over time" in page


def test_every_row_is_a_conversation_of_three_whole_turns(
    s3_server: S3Server, output: str, tmp_path: Path
) -> None:
    table = pq.read_table(download(s3_server, output, tmp_path) / "data")
    for row in table.to_pylist():
        assert [message["role"] for message in row["conversation"]] == ["user", "assistant"] * 3
        assert all(message["content"].strip() for message in row["conversation"])
        assert not any("<|" in message["content"] for message in row["conversation"])
        assert len(row["finish_reasons"]) == len(row["prompt_tokens"]) == len(row["completion_tokens"]) == 6
        assert row["prompt_tokens"] == sorted(row["prompt_tokens"])
        assert row["model_name"] == "builtin:tiny-chat"
        assert row["system_prompt"].startswith("You are a helpful AI assistant.")


def test_the_two_actors_do_not_write_the_same_rows(s3_server: S3Server, output: str, tmp_path: Path) -> None:
    table = pq.read_table(download(s3_server, output, tmp_path) / "data")
    conversations = [json.dumps(row["conversation"]) for row in table.to_pylist()]
    assert len(set(conversations)) > 100


def test_all_readers_see_the_same_rows(s3_server: S3Server, output: str, tmp_path: Path) -> None:
    folder = download(s3_server, output, tmp_path)
    expected = pq.read_table(folder / "data").sort_by("row_id").to_pylist()
    pattern = f"{folder}/data/*.parquet"
    relation = duckdb.sql(f"select * from read_parquet('{pattern}') order by row_id")
    columns = relation.columns
    assert [dict(zip(columns, row, strict=True)) for row in relation.fetchall()] == expected
    assert pl.read_parquet(pattern).sort("row_id").to_dicts() == expected
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == expected
    frame = pd.read_parquet(folder / "data").sort_values("row_id")
    assert list(frame["row_id"]) == [row["row_id"] for row in expected]
    assert [list(value) for value in frame["conversation"]] == [row["conversation"] for row in expected]


def test_the_same_command_again_finds_nothing_to_do(ray_cluster: RayCluster, output: str) -> None:
    again = generate(ray_cluster, output, "num_rows=105")
    assert again.returncode == 0, again.stderr
    assert "Nothing to do" in again.stdout


def test_another_sampling_setting_is_refused_by_its_name(ray_cluster: RayCluster, output: str) -> None:
    refused = generate(ray_cluster, output, "num_rows=105", "sampling.user.temperature=0.7")
    assert refused.returncode == 2
    assert "sampling.user.temperature: the build has 1.0, now 0.7" in refused.stderr


def test_a_larger_num_rows_adds_rows_and_rewrites_no_file(
    s3_server: S3Server, ray_cluster: RayCluster, output: str, tmp_path: Path
) -> None:
    before = {key: seen for key, seen in objects(s3_server, output).items() if key.startswith("data/")}
    grown = generate(ray_cluster, output, "num_rows=150")
    assert grown.returncode == 0, grown.stderr
    after = objects(s3_server, output)
    assert {key: after[key] for key in before} == before
    added = set(after) - set(before)
    assert [key for key in added if key.startswith("data/")] == ["data/part-000000000105.parquet"]
    body = s3_server.client().get_object(
        Bucket=s3_server.bucket, Key="submitted/build/data/part-000000000105.parquet"
    )["Body"]
    assert pq.read_table(BytesIO(body.read()))["row_id"].to_pylist() == list(range(105, 150))
    verified = magpie_ray("verify", output, env=ray_cluster.env)
    assert verified.returncode == 0, verified.stdout
    assert "row_id 0..149, each once" in verified.stdout
