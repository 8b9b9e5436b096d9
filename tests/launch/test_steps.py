"""The steps of the deployment pages that need no cluster, as they are written, in a fresh copy."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from anyscale.job.models import JobConfig

from magpie_ray.config.loading import job_of, load_job
from tests.launch.files import ROOT, entrypoint_of
from tests.launch.manifests import needs_kubectl
from tests.launch.test_docs import WRITTEN, blocks, commands

LOCAL = (["cp"], ["mkdir"], ["sed"], ["kubectl", "kustomize"])


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("jobs", "cluster.yaml", ".gitignore"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "--all"], cwd=tmp_path, check=True)
    return tmp_path


def follow(page: str, clone: Path) -> None:
    """Runs every local step of a page, in its order."""
    done = 0
    for block in blocks(ROOT / f"docs/{page}.md"):
        for words in commands(block):
            if any(words[: len(start)] == start for start in LOCAL):
                # As a shell would: globs are no words of Python.
                line = " ".join(word if "*" in word else shlex.quote(word) for word in words)
                run = subprocess.run(
                    ["bash", "-c", line], cwd=clone, capture_output=True, text=True, check=False
                )
                assert run.returncode == 0, f"{line}: {run.stderr}"
                done += 1
    assert done >= 3
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert not [
        line for line in changed.stdout.splitlines() if not line.startswith("A ")
    ]  # nothing tracked, nothing new


def no_name_is_left(at: Path) -> None:
    for path in [at] if at.is_file() else filter(Path.is_file, at.rglob("*")):
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert "YOUR-" not in "\n".join(lines), path


@needs_kubectl
def test_kuberay(clone: Path) -> None:
    follow("kuberay", clone)
    assert (clone / "jobs/kuberay/mine/once/build.yaml").is_file()


def test_ray_up(clone: Path) -> None:
    follow("ray-up", clone)
    no_name_is_left(clone / "mine")
    config = yaml.safe_load((clone / "mine/cluster.yaml").read_text())
    assert config["docker"]["image"] == "registry.example.com/ml/magpie-ray:0.1.0"


def test_anyscale(clone: Path) -> None:
    follow("anyscale", clone)
    no_name_is_left(clone / "mine")
    job = JobConfig.from_yaml(str(clone / "mine/anyscale/job.yaml"))
    assert job.image_uri == "registry.example.com/ml/magpie-ray:0.1.0-anyscale"
    assert "s3://my-bucket/" in job.entrypoint


@needs_kubectl
def test_recipes(clone: Path) -> None:
    """What the page of Kubernetes has made is there; so are the configs that the page shows."""
    follow("kuberay", clone)
    follow("anyscale", clone)
    for name, text in WRITTEN.items():
        (clone / name).write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=clone, check=True)
    follow("recipes", clone)
    mine = clone / "jobs/kuberay/mine"
    sent = list(yaml.safe_load_all(run_in(clone, "kubectl", "kustomize", str(mine / "answers"))))
    [job] = [document for document in sent if document["kind"] == "RayJob"]
    [config] = [document["data"] for document in sent if document["kind"] == "ConfigMap"]
    assert job["metadata"]["name"] == "magpie-answers"
    (clone / "written.yaml").write_text(config["build.yaml"])
    path, overrides = entrypoint_of(
        job["spec"]["entrypoint"].replace("/etc/magpie/build", f"{clone}/written")
    )
    assert job_of(load_job(path, overrides)) == "answer"
    no_name_is_left(mine / "curate.yaml")


def run_in(folder: Path, *command: str) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
