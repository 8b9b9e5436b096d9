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

import ray
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from tests.support.paths import ROOT
from tests.support.ports import free_port

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
    """`ray start --head --block` in a session of its own; whatever is left of that session is killed.

    There may be several at once: each has ports of its own.
    """
    address, dashboard = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    options = {
        "port": address.split(":")[1],
        "ray-client-server-port": free_port(),
        "include-dashboard": "true",
        "dashboard-port": dashboard.split(":")[1],
        "dashboard-agent-listen-port": free_port(),
        "num-cpus": num_cpus,
        "num-gpus": num_gpus,
    }
    command = [str(BIN / "ray"), "start", "--head", "--block", *(f"--{k}={v}" for k, v in options.items())]
    with (home / "ray.log").open("w") as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **env, "PATH": f"{BIN}:{os.environ['PATH']}"},  # as in an activated venv
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_for(f"http://{dashboard}/api/version", process)
        yield RayCluster(
            address=address, dashboard=f"http://{dashboard}", env={**env, "RAY_ADDRESS": address}
        )
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def connected(cluster: RayCluster, **env_vars: str) -> Iterator[None]:
    """This process as a driver, whose actors find the tests' modules and have these variables, too."""
    runtime_env = {"env_vars": {"PYTHONPATH": str(ROOT), **env_vars}}
    ray.init(address=cluster.address, log_to_driver=False, runtime_env=runtime_env)
    try:
        yield
    finally:
        ray.shutdown()


@retry(stop=stop_after_delay(90), wait=wait_fixed(0.2), retry=retry_if_exception_type(OSError), reraise=True)
def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, f"ray start ended with {process.returncode}"
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
