"""jobs/generate.py, what launch files run: the job that its config is of."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow  # a process of its own for each


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "jobs/generate.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_rows: 0\n", "num_rows: got 0"),
        ("source: {path: no/such/rows}\nn: 0\n", "n: got 0"),
        ("source: {path: no/such/rows}\ncolumns: {easy: {choice: [easy]}}\n", "must have 2 to 100 labels"),
    ],
    ids=["generate", "answer", "score"],
)
def test_a_config_is_read_as_that_of_its_own_job(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(text)
    done = run(str(tmp_path / "job.yaml"))
    assert done.returncode == 2
    assert said in done.stderr
    assert "magpie-ray" not in done.stderr, "no other command is named"


def test_it_takes_the_options_of_the_commands() -> None:
    assert "--if-exists" in run("--help").stdout
