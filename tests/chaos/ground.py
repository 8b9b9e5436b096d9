"""What all builds of a chaos run stand on: an S3 server behind a proxy that is watched, and Ray nodes.

Invariant: every process is in a session of its own that ends with the context that started it; ports
are free ones, so that other clusters of this machine are left alone.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from tests.chaos.engines import BROKEN_NODE
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.s3_server import FaultProxy, S3Server, running_s3_server

BIN = Path(sys.executable).parent

# A lost node would otherwise be noticed after 15 s; an answer may still take two.
_RAY_SETTINGS = {
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
    "RAY_health_check_timeout_ms": "2000",
}


@dataclass(slots=True, eq=False)
class SpoiledRequest:
    """One request that suffered a fault, until the next one for the same object is served."""

    fault: str
    path: str
    at: float
    served_at: float | None = None


class WatchedProxy(FaultProxy):
    """A FaultProxy that knows when each fault hit, when its object was served again, and all uploads."""

    def __init__(self, server: S3Server) -> None:
        super().__init__(server)
        self.changed = threading.Condition()
        self.spoiled: list[SpoiledRequest] = []
        self.uploads: Counter[str] = Counter()
        self._suffering = threading.local()

    def fault_for(self, request: str) -> tuple[str | None, threading.Event]:
        fault, calm = super().fault_for(request)
        self._suffering.fault = fault
        if fault:
            path = request.split(" ", 1)[1].split("?")[0]
            with self.changed:
                self.spoiled.append(SpoiledRequest(fault, path, time.monotonic()))
                self.changed.notify_all()
        return fault, calm

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        super().handle(handler)
        path = handler.path.split("?")[0]
        if self._suffering.fault in (None, "lost_reply"):
            with self.changed:
                if handler.command == "PUT" and "/data/" in path:  # a trial of the store counts, too
                    self.uploads[path.split("/data/")[0].rsplit("/", 1)[-1]] += 1
                if self._suffering.fault is None:
                    for spoiled in self.spoiled:
                        if spoiled.path == path and spoiled.served_at is None:
                            spoiled.served_at = time.monotonic()
                self.changed.notify_all()


class Node:
    """A Ray node, `ray start --block` in a session of its own."""

    def __init__(self, home: Path, env: dict[str, str], *, num_cpus: int, head: "Node | None" = None) -> None:
        self.port = head.port if head else free_port()
        self.num_cpus = num_cpus
        self._log = home / f"node-{time.monotonic_ns()}.log"
        options = ["--block", f"--num-cpus={num_cpus}", "--num-gpus=0", "--include-log-monitor=false"]
        options += ["--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={80 * 2**20}"]
        if head:
            options += [f"--address={head.address}"]
        else:
            options += ["--head", f"--port={self.port}", "--include-dashboard=false"]
            options += [f"--temp-dir={home / 'ray'}", f"--ray-client-server-port={free_port()}"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [str(BIN / "ray"), "start", *options],
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_until_up(self, seconds: float = 90) -> "Node":
        @retry(stop=stop_after_delay(seconds), wait=wait_fixed(0.1), retry=retry_if_result(lambda up: not up))
        def up() -> bool:
            assert self._process.poll() is None, self._log.read_text()
            return "Ray runtime started" in self._log.read_text()

        up()
        return self

    def signal(self, name: str, number: signal.Signals) -> None:
        """A signal to one of the node's own processes, such as its raylet."""
        for pid in _session(self._process.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                    os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL of everything that runs on the node: Ray puts workers into process groups of their own."""
        for pid in _session(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _session(leader: int) -> list[int]:
    """The processes of a session, its leader first."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(stat.parent.name))
    return sorted(found, key=lambda pid: pid != leader)


@dataclass(slots=True)
class Ground:
    """A home folder, a watched store, and whatever nodes are started on it."""

    home: Path
    server: S3Server
    proxy: WatchedProxy
    env: dict[str, str]
    nodes: list[Node] = field(default_factory=list)

    def start_node(self, *, num_cpus: int, head: Node | None = None, broken: str = "") -> Node:
        """Returns at once: `wait_until_up` says when it is there. broken: see `engines`."""
        env = {**self.env, BROKEN_NODE: broken} if broken else self.env
        node = Node(self.home, env, num_cpus=num_cpus, head=head)
        self.nodes.append(node)
        return node

    def clear(self) -> None:
        """Ends all nodes that are left."""
        for node in self.nodes:
            node.kill()
        self.nodes.clear()

    def actor_logs(self, pid: int) -> list[Path]:
        """What the actor in a process has logged."""
        return list((self.home / "ray").glob(f"session_2*/logs/worker-*-{pid}.err"))  # not session_latest


@contextlib.contextmanager
def prepared(home: Path) -> Iterator[Ground]:
    """Ground to run builds on. Torch is hidden from all processes: importing it takes half of a start."""
    (home / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = None\n")
    with running_s3_server("chaos") as server, WatchedProxy(server) as proxy:
        env = {
            **os.environ,
            **proxy.server.env,
            **_RAY_SETTINGS,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{home}",
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "COLUMNS": "200",
        }
        env.pop("RAY_ADDRESS", None)
        ground = Ground(home, server, proxy, env)
        try:
            yield ground
        finally:
            ground.clear()
