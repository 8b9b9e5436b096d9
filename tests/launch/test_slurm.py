"""jobs/slurm: the script as bash runs it, with doubles of Slurm's, Ray's and our own commands."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launch.files import ROOT

SCRIPT = ROOT / "jobs/slurm/magpie.sbatch"
DOUBLES = {
    # Runs the command of a step in its place, and notes the options.
    "srun": """while [ "${1#--}" != "$1" ]; do echo "$1" >> "$HERE/step"; shift; done
exec "$@" """,
    "ray": """echo "$*" >> "$HERE/ray"
case $1 in
  start) [ ! -e "$HERE/fails-on-$2" ] || exit 1; touch "$HERE/up"; exec sleep 60 ;;
  health-check) test -e "$HERE/up" ;;
esac""",
    "magpie-ray": """echo "$*" > "$HERE/command"
trap 'exit 3' TERM
touch "$HERE/running"
while test ! -e "$HERE/done"; do sleep 0.05; done""",
    "scontrol": """echo "$*" >> "$HERE/scontrol" """,
    # The token, or the number of nodes that are up: the head and those that have joined.
    "python3": """case "$*" in
  *secrets*) echo 5ec2e7 ;;
  *) echo "$((1 + $(cat "$HERE/others")))" ;;
esac""",
    "getent": "echo 10.0.0.7 STREAM node-7",
}


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Start:
    """Starts the script as slurmd would, and ends what is left of it."""
    (tmp_path / "bin").mkdir()
    for name, body in DOUBLES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "others").write_text("0")

    def start(*words: str, nodes: int = 1) -> "subprocess.Popen[bytes]":
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HERE": str(tmp_path)}
        env |= {"SLURM_JOB_ID": "1234567", "SLURM_NNODES": str(nodes), "SLURMD_NODENAME": "node-7"}
        env |= {"SLURM_JOB_NODELIST": "node-[7-9]"}
        started = subprocess.Popen(
            ["bash", SCRIPT, *words],
            env=env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        request.addfinalizer(lambda: end(started))
        return started

    return start


def end(job: "subprocess.Popen[bytes]") -> None:
    """The script and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(job.pid, signal.SIGKILL)
    job.wait()


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.02)
    return path.read_text()


def wait_for_line(path: Path, text: str) -> None:
    deadline = time.monotonic() + 30
    while not path.exists() or text not in path.read_text():
        assert time.monotonic() < deadline, f"{text} does not come in {path}"
        time.sleep(0.02)


def ended(job: "subprocess.Popen[bytes]") -> int:
    return job.wait(timeout=30)


def test_the_words_after_the_script_are_a_config_of_any_job_and_its_overrides(
    job: Start, tmp_path: Path
) -> None:
    started = job("jobs/configs/demo.yaml", "num_rows=5", "output.path=/shared/a b")
    wait_for(tmp_path / "running")
    (tmp_path / "done").touch()
    assert ended(started) == 0
    command = "job jobs/configs/demo.yaml num_rows=5 output.path=/shared/a b cluster.address=10.0.0.7:24567"
    assert (tmp_path / "command").read_text().strip() == command
    assert not (tmp_path / "scontrol").exists()


@pytest.mark.parametrize(("number", "queued"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_only_the_time_limit_puts_the_job_back_into_the_queue(
    job: Start, tmp_path: Path, number: signal.Signals, queued: bool
) -> None:
    started = job("jobs/configs/demo.yaml")
    wait_for(tmp_path / "running")
    started.send_signal(number)
    assert ended(started) == 3
    assert (tmp_path / "scontrol").exists() == queued
    if queued:
        assert (tmp_path / "scontrol").read_text() == "requeue 1234567\n"


def test_a_head_that_does_not_start_ends_the_job(job: Start, tmp_path: Path) -> None:
    (tmp_path / "fails-on---head").touch()
    started = job("jobs/configs/demo.yaml")
    assert ended(started) == 1
    assert not (tmp_path / "command").exists()


def test_the_driver_waits_for_the_other_nodes_to_join_the_head(job: Start, tmp_path: Path) -> None:
    started = job("jobs/configs/demo.yaml", nodes=4)
    wait_for_line(tmp_path / "ray", "start --address=10.0.0.7:24567")
    assert not (tmp_path / "command").exists()
    (tmp_path / "others").write_text("3")
    wait_for(tmp_path / "running")
    (tmp_path / "done").touch()
    assert ended(started) == 0
    starts = [line for line in (tmp_path / "ray").read_text().splitlines() if line.startswith("start")]
    assert [line.split()[1] for line in starts] == ["--head", "--address=10.0.0.7:24567"]
    options = set((tmp_path / "step").read_text().splitlines())
    assert {"--nodes=1", "--nodes=3", "--ntasks=3", "--exclude=node-7"} <= options


def test_nodes_that_do_not_join_end_the_job(job: Start, tmp_path: Path) -> None:
    (tmp_path / "fails-on---address=10.0.0.7:24567").touch()
    started = job("jobs/configs/demo.yaml", nodes=4)
    assert ended(started) == 1
    assert not (tmp_path / "command").exists()


def test_the_shell_is_sound() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    linted = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
