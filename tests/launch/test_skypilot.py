"""jobs/skypilot: the keys that SkyPilot 0.14 knows, the shell inside, and the command that it ends in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from magpie_ray.config.loading import load_config
from tests.launch.files import ROOT, entrypoint_of

TASK = yaml.safe_load((ROOT / "jobs/skypilot/magpie.yaml").read_text())
# What its schema has, as far as it is used here.
KEYS = {"name", "num_nodes", "resources", "workdir", "envs", "secrets", "setup", "run"}
RESOURCES = {"accelerators", "use_spot", "disk_size", "job_recovery"}


def test_skypilot_knows_its_keys() -> None:
    assert set(TASK) == KEYS
    assert set(TASK["resources"]) == RESOURCES


@pytest.mark.parametrize("part", ["setup", "run"])
def test_the_shell_is_sound(part: str, tmp_path: Path) -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    script = tmp_path / f"{part}.sh"
    script.write_text(TASK[part])
    command = [shellcheck, "--shell=bash", "--exclude=SC1091", script]
    linted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


def ran(tmp_path: Path, rank: int) -> list[str]:
    """What a node of that rank asks of Ray and of us, with doubles of both."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f"PATH={tmp_path}/.venv/bin:$PATH\n")
    for name in ("ray", "magpie-ray"):
        double = tmp_path / ".venv/bin" / name
        double.write_text(f'#!/bin/sh\necho "{name} $*" >> "{tmp_path}/asked"\n')
        double.chmod(0o755)
    env = {
        "PATH": os.environ["PATH"],
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NODE_RANK": str(rank),
    }
    env |= {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NUM_GPUS_PER_NODE": "4", "OUTPUT": "s3://b/a"}
    env |= {name: value for name, value in TASK["envs"].items() if value is not None}
    subprocess.run(["bash", "-c", TASK["run"]], env=env, cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "asked").read_text().splitlines()


def test_the_first_node_is_the_head_and_generates_on_all_gpus(tmp_path: Path) -> None:
    asked = ran(tmp_path, 0)
    assert asked[0].startswith("ray start --head --node-ip-address=10.0.0.1 --port=6379 ")
    path, overrides = entrypoint_of(asked[-1])
    config = load_config(path, overrides)
    assert config.cluster.num_actors == 8
    assert config.cluster.address == "10.0.0.1:6379"
    assert config.output.path == "s3://b/a"


def test_the_other_nodes_join_it(tmp_path: Path) -> None:
    asked = ran(tmp_path, 1)
    assert asked[-1].startswith("ray start --address=10.0.0.1:6379 ")
    assert not [line for line in asked if line.startswith("magpie-ray")]


def test_nothing_secret_is_written_here_and_skypilots_own_ray_lives_on() -> None:
    assert set(TASK["secrets"].values()) == {None}
    assert not re.search(r"^\s*ray stop", TASK["run"], re.MULTILINE)
