"""A Ray cluster of one node for tests, and the magpie-ray command run as a user runs it."""

import contextlib
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running head node. `env` lets a command reach it, and what it was started with."""

    address: str
    dashboard: str
    env: dict[str, str]


@contextlib.contextmanager
def running_cluster(
    env: Mapping[str, str], *, num_cpus: int, num_gpus: int, home: Path
) -> Iterator[RayCluster]:
    """`ray start --head --block` in a session of its own; whatever is left of that session is killed."""
    port, dashboard_port = "26379", "28265"
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--port={port}", f"--num-cpus={num_cpus}"]
    command += [f"--num-gpus={num_gpus}", f"--dashboard-port={dashboard_port}", "--include-dashboard=true"]
    with (home / "ray.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env, "PATH": f"{BIN}:{os.environ['PATH']}"},  # as in an activated venv
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    try:
        _wait_for(f"{dashboard}/api/version")
        address = f"127.0.0.1:{port}"
        yield RayCluster(address=address, dashboard=dashboard, env={**env, "RAY_ADDRESS": address})
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@retry(stop=stop_after_delay(90), wait=wait_fixed(0.2), retry=retry_if_exception_type(OSError), reraise=True)
def _wait_for(url: str) -> None:
    with urllib.request.urlopen(url, timeout=5):
        pass


def magpie_ray(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT, timeout_seconds: float = 400
) -> subprocess.CompletedProcess[str]:
    """`magpie-ray ARGUMENTS`, its output captured."""
    return run_command(
        [str(BIN / "magpie-ray"), *arguments], env=env, cwd=cwd, timeout_seconds=timeout_seconds
    )


def run_command(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    timeout_seconds: float = 400,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
