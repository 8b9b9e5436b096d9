"""From rows to a scored, curated set on real vLLM, Ray and S3: labels, rewards of answers, embeddings."""

import json
import statistics
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from jobs.tiny_chat.reward_model import write_reward_model
from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.end_to_end.test_submitted_job import CONFIG, download
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.end_to_end

ENGINE = {"device": "cpu", "gpu_memory_utilization": 0.06}
LEVEL = {
    "choice": {"easy": "A child knows.", "hard": None},
    "prompt": "{labels}\n\nThe request: {instruction}\n\nHow hard is it?",
}


def test_rows_get_labels_answers_rewards_and_vectors_and_one_query_joins_them(
    s3_server: S3Server, ray_cluster: RayCluster, minilm: Path, tmp_path: Path
) -> None:
    at = {
        name: f"s3://{s3_server.bucket}/scores/{name}"
        for name in ("rows", "levels", "answers", "rewards", "vectors", "near", "best")
    }

    def command(name: str, *arguments: str, code: int = 0) -> str:
        done = magpie_ray(name, *arguments, env=ray_cluster.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def config(output: str, source: str, **keys: object) -> str:
        path = tmp_path / f"{output}.yaml"
        fixed = {"source": {"path": at[source]}, "engine": ENGINE, "cluster": {"num_actors": 1}}
        place = {"output": {"path": at[output], "rows_per_partition": 8}}
        path.write_text(yaml.safe_dump({**fixed, **place, **keys}))
        return str(path)

    def table(name: str) -> dict[int, dict[str, object]]:
        rows = pq.read_table(download(s3_server, at[name], tmp_path / name) / "data").to_pylist()
        return {int(row["row_id"]): row for row in rows}

    made = ("only_instruction=true", "n_turns=1", "seed=5", "output.rows_per_partition=8")
    command("generate", CONFIG, *made, f"output.path={at['rows']}", "num_rows=16", "cluster.num_actors=1")
    levels = config("levels", "rows", columns={"level": LEVEL})
    assert "16" in command("plan", levels)
    assert "16 rows" in command("score", levels)
    labelled = table("levels")
    assert sorted(labelled) == list(range(16))
    assert {row["level"] for row in labelled.values()} <= {"easy", "hard"}
    assert all(0.5 <= float(str(row["level_probability"])) <= 1 for row in labelled.values())

    warm = {"assistant": {"temperature": 1.2, "max_tokens": 48}}
    command("answer", config("answers", "rows", n=2, sampling=warm))
    reward_model = write_reward_model(tmp_path / "reward-model")
    rewards = {"columns": {"instruct_reward": {"reward": "response"}}, "model": {"name": str(reward_model)}}
    command("score", config("rewards", "answers", **rewards))
    rewarded = table("rewards")
    assert all(len(list(row["instruct_reward"])) == 2 for row in rewarded.values())  # type: ignore[call-overload]
    assert statistics.pstdev(row["instruct_reward"][0] for row in rewarded.values()) > 0  # type: ignore[index]

    vectors = {"columns": {"embedding": {"embed": "instruction"}}, "model": {"name": str(minilm)}}
    command("score", config("vectors", "rows", **vectors))
    command("dedupe", at["rows"], at["near"], "--embeddings", at["vectors"])
    query = (
        "SELECT a.* EXCLUDE (row_id), a.row_id AS source_row_id, level, instruct_reward FROM answers a "
        "JOIN levels USING (row_id) JOIN rewards USING (row_id) JOIN near USING (row_id) "
        "WHERE repeat_count = 0 ORDER BY source_row_id"
    )
    sources = [f"--from={name}={at[name]}" for name in ("answers", "levels", "rewards", "near")]
    command("select", at["best"], *sources, "--sql", query)
    kept = {row_id for row_id, row in table("near").items() if row["repeat_count"] == 0}
    best = table("best")
    assert [row["source_row_id"] for _, row in sorted(best.items())] == sorted(kept)
    for row in best.values():
        assert row["instruct_reward"] == rewarded[int(str(row["source_row_id"]))]["instruct_reward"]
    for name in at:
        command("verify", at[name])
    status = json.loads(command("status", at["levels"], "--json"))
    assert (status["rows"], status["complete"]) == (16, True)
    pairs = tmp_path / "pairs.jsonl"
    command("export", at["best"], str(pairs), "--to", "preference")
    # Equal answers make no pair.
    differing = sum(len(set(row["responses"])) == 2 for row in best.values())  # type: ignore[call-overload]
    assert len(pairs.read_text().splitlines()) <= differing
    # A chat model gives no rewards; nothing is written.
    wrong = config("rewards", "answers", **(rewards | {"model": {"name": "builtin:tiny-chat"}}))
    assert "need a reward model" in command("score", wrong, f"output.path={tmp_path / 'no'}", code=2)
