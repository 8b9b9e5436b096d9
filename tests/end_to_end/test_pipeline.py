"""`make pipeline`, with few rows: every step on real Ray and vLLM, and the same again."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.end_to_end.cluster import BIN, RayCluster, run_command

pytestmark = pytest.mark.end_to_end

ROWS = 80
STEPS = ("instructions", "quality", "duplicates", "kept", "answers", "rewards", "best")


def pipeline(cluster: RayCluster, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**cluster.env, "ROWS": str(ROWS), "PATH": f"{BIN}:{os.environ['PATH']}"}
    return run_command(["jobs/pipeline/run.sh", str(folder)], env=env, timeout_seconds=900)


def files_in(folder: Path) -> dict[Path, int]:
    """Each file, with what changes when it is written again."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def table_in(output: str) -> str:
    return output[output.index("\n step ") :]


def lines_of(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.timeout(1200)
def test_every_row_of_the_pipeline_is_accounted_for_and_the_same_again_does_nothing(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    folder = tmp_path / "pipeline"
    done = pipeline(ray_cluster, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    table = table_in(done.stdout)
    assert "Every step accounts for all that went in." in table
    assert all((folder / step / "_SUCCESS").exists() for step in STEPS)

    best, pairs = lines_of(folder / "best.jsonl"), lines_of(folder / "pairs.jsonl")
    assert 0 < len(best) < ROWS
    for row in best:
        messages = row["messages"]
        assert isinstance(messages, list)
        assert [message["role"] for message in messages] == ["user", "assistant"]
    for pair in [*pairs, *lines_of(folder / "pairs.test.jsonl")]:
        assert pair["score_chosen"] > pair["score_rejected"]  # type: ignore[operator]

    before = files_in(folder)
    again = pipeline(ray_cluster, folder)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("Nothing to do") == len(STEPS)
    assert table_in(again.stdout) == table
    assert files_in(folder) == before
