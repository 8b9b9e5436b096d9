"""From rows to a scored, curated set on real vLLM, Ray and S3: labels, rewards of answers, embeddings."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from jobs.tiny_chat.reward_model import write_reward_model
from magpie_ray.dataset.verify import verify
from magpie_ray.publish.report.report import write_report
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.end_to_end.test_submitted_job import CONFIG, download
from tests.support.s3_server import S3Server

pytestmark = pytest.mark.end_to_end

ROWS = 12
ENGINE = {"device": "cpu", "gpu_memory_utilization": 0.06}
WARM = {"assistant": {"temperature": 1.2, "max_tokens": 48}}
LEVEL = {
    "choice": {"easy": "A child knows.", "hard": None},
    "prompt": "{labels}\n\nThe request: {instruction}\n\nHow hard is it?",
}
QUERY = (
    "SELECT a.* EXCLUDE (row_id), a.row_id AS source_row_id, level, instruct_reward FROM answers a "
    "JOIN levels USING (row_id) JOIN rewards USING (row_id) JOIN near USING (row_id) "
    "WHERE repeat_count = 0 ORDER BY source_row_id"
)


@dataclass(frozen=True)
class Sets:
    """Data sets below one prefix of a bucket, each by its name."""

    server: S3Server
    cluster: RayCluster
    folder: Path

    def at(self, name: str) -> str:
        return f"s3://{self.server.bucket}/scores/{name}"

    def command(self, name: str, *arguments: str, code: int = 0) -> str:
        """All that it printed."""
        done = magpie_ray(name, *arguments, env=self.cluster.env)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def config(self, output: str, source: str, **keys: object) -> str:
        """The file of a pass that makes one of the sets out of another."""
        path = self.folder / f"{output}.yaml"
        fixed = {"source": {"path": self.at(source)}, "engine": ENGINE, "cluster": {"num_actors": 1}}
        place = {"output": {"path": self.at(output), "rows_per_partition": 8}}
        path.write_text(yaml.safe_dump({**fixed, **place, **keys}))
        return str(path)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """In order of row_id."""
        rows = pq.read_table(download(self.server, self.at(name), self.folder / name) / "data").to_pylist()
        return sorted(rows, key=lambda row: row["row_id"])


@pytest.fixture
def sets(
    s3_server: S3Server, ray_cluster: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Sets:
    for variable, value in s3_server.env.items():
        monkeypatch.setenv(variable, value)
    return Sets(server=s3_server, cluster=ray_cluster, folder=tmp_path)


def test_rows_get_labels_answers_rewards_and_vectors_and_one_query_joins_them(
    sets: Sets, minilm: Path
) -> None:
    made = ("only_instruction=true", "n_turns=1", "seed=5", "output.rows_per_partition=8")
    to = (f"output.path={sets.at('rows')}", "cluster.num_actors=1", f"num_rows={ROWS}")
    sets.command("generate", CONFIG, *made, *to)

    levels = sets.config("levels", "rows", columns={"level": LEVEL})
    assert f"{ROWS} rows in" in sets.command("plan", levels)
    assert f"The build is complete: {ROWS} rows" in sets.command("score", levels)
    labelled = sets.rows("levels")
    assert [row["row_id"] for row in labelled] == list(range(ROWS))
    assert {row["level"] for row in labelled} <= {"easy", "hard"}
    assert all(0.5 <= row["level_probability"] <= 1 for row in labelled)

    sets.command("answer", sets.config("answers", "rows", n=2, sampling=WARM))
    reward_model = write_reward_model(sets.folder / "reward-model")
    rewards = {"columns": {"instruct_reward": {"reward": "response"}}, "model": {"name": str(reward_model)}}
    sets.command("score", sets.config("rewards", "answers", **rewards))
    rewarded = [row["instruct_reward"] for row in sets.rows("rewards")]
    assert all(len(each) == 2 for each in rewarded)
    assert statistics.pstdev(first for first, _ in rewarded) > 0

    vectors = {"columns": {"embedding": {"embed": "instruction"}}, "model": {"name": str(minilm)}}
    sets.command("score", sets.config("vectors", "rows", **vectors))
    sets.command("dedupe", sets.at("rows"), sets.at("near"), "--embeddings", sets.at("vectors"))
    joined = [f"--from={name}={sets.at(name)}" for name in ("answers", "levels", "rewards", "near")]
    sets.command("select", sets.at("best"), *joined, "--sql", QUERY)
    best = sets.rows("best")
    kept = [row["row_id"] for row in sets.rows("near") if row["repeat_count"] == 0]
    assert [row["source_row_id"] for row in best] == kept
    assert [row["instruct_reward"] for row in best] == [rewarded[row_id] for row_id in kept]

    for name in ("rows", "levels", "answers", "rewards", "vectors", "near", "best"):
        found = verify(Storage(sets.at(name)))
        assert found.ok, (name, found.problems)
        write_report(Storage(sets.at(name)))
    status = json.loads(sets.command("status", sets.at("levels"), "--json"))
    assert (status["rows"], status["complete"]) == (ROWS, True)
    check_export(sets, best)
    # A chat model gives no rewards; nothing is written.
    wrong = sets.config("rewards", "answers", **(rewards | {"model": {"name": "builtin:tiny-chat"}}))
    said = sets.command("score", wrong, f"output.path={sets.folder / 'no'}", code=2)
    assert "need a reward model" in said


def check_export(sets: Sets, best: list[dict[str, Any]]) -> None:
    """Scores alone are no conversations, and equal answers make no pair."""
    alone = str(sets.folder / "alone.jsonl")
    said = sets.command("export", sets.at("levels"), alone, "--to", "messages", code=2)
    assert "join it with its source by `magpie-ray select`" in said
    pairs = sets.folder / "pairs.jsonl"
    sets.command("export", sets.at("best"), str(pairs), "--to", "preference")
    differing = sum(len(set(row["responses"])) == 2 for row in best)
    assert len(pairs.read_text().splitlines()) <= differing
