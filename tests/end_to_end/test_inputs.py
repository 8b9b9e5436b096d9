"""Rows with inputs on real vLLM and Ray: a table on an S3 server, two actors, all readers of the build."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.end_to_end.test_submitted_job import CONFIG, download, objects
from tests.support.inputs import write_table
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.end_to_end

PEOPLE = [
    {
        "system_prompt": f"You are a helpful assistant of person {i}." if i % 3 else "",
        "town": f"t{i}",
        "age": i,
    }
    for i in range(24)
]


def upload(s3_server: S3Server, key: str, file: Path) -> str:
    s3_server.client().put_object(Bucket=s3_server.bucket, Key=key, Body=file.read_bytes())
    return f"s3://{s3_server.bucket}/{key}"


def test_a_build_with_inputs_is_made_grown_read_and_kept_from_other_inputs(
    s3_server: S3Server, ray_cluster: RayCluster, tmp_path: Path
) -> None:
    file = write_table(tmp_path / "people.csv", PEOPLE)
    folder = upload(s3_server, "inputs/in/people.csv", file).removesuffix("/people.csv")
    output = f"s3://{s3_server.bucket}/inputs/build"
    settings = [
        *("n_turns=2", "num_rows=null", f"inputs.path={folder}", "inputs.keep=[town, age]", "seed=3"),
        *("output.rows_per_partition=6", "cluster.num_actors=2", f"output.path={output}"),
    ]

    def command(name: str, *arguments: str, code: int = 0) -> str:
        done = magpie_ray(name, *arguments, env=ray_cluster.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    planned = command("plan", CONFIG, *settings)
    assert "24 in 1 CSV file at s3://" in planned
    command("generate", CONFIG, *settings)
    command("generate", CONFIG, *settings, "num_rows=30")
    table = pq.read_table(download(s3_server, output, tmp_path / "copy") / "data")
    rows = sorted(table.to_pylist(), key=lambda row: int(row["row_id"]))
    assert [row["row_id"] for row in rows] == list(range(30))
    for row in rows:
        person = PEOPLE[row["row_id"] % 24]
        assert row["input_id"] == row["row_id"] % 24
        assert row["system_prompt"] == (person["system_prompt"] or None)
        assert (row["town"], row["age"]) == (person["town"], person["age"])
        assert len(row["conversation"]) == 4
    # A prompt of its own makes other rows than that of another person.
    assert len({row["conversation"][0]["content"] for row in rows}) > 10
    assert {key for key in objects(s3_server, output) if key.startswith("_magpie/inputs/")} >= {
        "_magpie/inputs/files.json",
        "_magpie/inputs/blocks.json",
    }

    command("verify", output)
    assert json.loads(command("status", output, "--json"))["rows"] == 30
    assert "input 7" in command("show", output, "--row", "7")
    assert "row 7, input 7" in command("show", output, "--where", "town = 't7'")
    command("report", output)
    card = s3_server.client().get_object(Bucket=s3_server.bucket, Key="inputs/build/README.md")["Body"].read()
    assert b"| `age` | `int64` | from the row's input |" in card
    exported = tmp_path / "rows.jsonl"
    command("export", output, str(exported), "--to", "messages", "--system-prompts")
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [line["messages"][0]["role"] for line in lines[:3]] == ["user", "system", "system"]

    write_table(file, PEOPLE[:-1])
    upload(s3_server, "inputs/in/people.csv", file)
    upload(s3_server, "inputs/in/more.csv", file)
    refused = command("generate", CONFIG, *settings, "num_rows=40", code=2)
    assert "more.csv was added" in refused
    assert "people.csv has changed (inputs: 24 before, 23 now)" in refused
