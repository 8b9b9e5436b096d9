"""Rules and a chat format of the user's script itself: actors, other processes, have the script's code."""

import json
import sys
from pathlib import Path

import pytest

from magpie_ray.dataset.layout import MANIFEST_KEY
from tests.end_to_end.cluster import RayCluster, magpie_ray, run_command
from tests.support.paths import ROOT

pytestmark = pytest.mark.end_to_end

SCRIPT = """
import sys

from magpie_ray import derive, generate
from tests.support.engines import ScriptedEngine

PARTS = 2

def is_odd(text):
    return len(text) % PARTS == 1

def odd(message, conversation):
    return "odd" if message.role == "user" and is_odd(message.text) else None

def plain(tokenizer, **build):
    return derive(tokenizer, **build)

result = generate(
    {
        "num_rows": 60,
        "seed": 0,
        "model": {"chat_format": plain},
        "acceptance": {"custom": [odd], "rules": {"repetition": False}},
        "inputs": {"path": sys.argv[2]},
        "output": {"path": sys.argv[1]},
        "cluster": {"num_actors": 2},
    },
    engine_factory=ScriptedEngine(),
)
print(result.new_rows, result.rejected)
"""


def test_a_script_gives_its_own_functions_to_actors(ray_cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    people = tmp_path / "people.csv"
    people.write_text("system_prompt\nYou talk to Anna.\nYou talk to Ben.\n")
    output = tmp_path / "build"
    # Actors import the simulated engine from the folder that the script is run in.
    command = [sys.executable, str(tmp_path / "script.py"), str(output), str(people)]
    done = run_command(command, env={**ray_cluster.env, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    new_rows, rejected = map(int, done.stdout.split()[-2:])
    manifest = json.loads((output / MANIFEST_KEY).read_text())
    assert new_rows == 60
    assert manifest["rejected"]["odd"] > 10
    assert rejected >= manifest["rejected"]["odd"]
    # Another program has no such functions, and says whose they were.
    other = magpie_ray(
        *("generate", "demo", "model.chat_format=__main__:plain", "num_rows=70", f"output.path={output}"),
        env=ray_cluster.env,
    )
    assert other.returncode == 2
    assert "it was in the script that began the build" in other.stdout + other.stderr
