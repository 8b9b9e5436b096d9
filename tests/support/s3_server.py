"""The S3 server that tests share, and a proxy in front of it that injects faults.

The proxy is a thread. Other processes, Ray actors among them, reach it through `env`. Nothing here sleeps to
wait.
"""

import contextlib
import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

import pytest

from jobs.benchmarks.s3_server import S3Server, running_s3_server

__all__ = ["FaultProxy", "S3Server", "running_s3_server", "s3_server"]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with running_s3_server() as server:
        yield server


@dataclass(frozen=True, slots=True)
class _Storm:
    rate: float
    faults: tuple[str, ...]
    method: str
    random: random.Random

    def fault(self, request: str) -> str | None:
        if request.startswith(self.method) and self.random.random() < self.rate:
            return self.random.choice(self.faults)
        return None


class FaultProxy:
    """Passes requests on to a server, and spoils the ones it was told to.

    `spoil("PUT", "lost_reply")` does so to the next PUT; several wait in line, each for its method. `storm`
    spoils a share of all requests, `outage` every one, until `calm`. Faults: `lost_reply` (done, but the
    connection closes without an answer), `reset` (closes before it is done), `cut_body` (half of the answer's
    body), `flipped_body` (with one bit changed), `stall` (no answer, not done, the connection stays open
    until `calm`), or an HTTP status with an S3 error code, as in `"503 SlowDown"`.

    conditions: what becomes of If-None-Match. `heeded` by the server behind, `ignored` (as by `rclone serve
    s3`) or `refused` with 501: the latter two are stores without exclusive creation.

    `injected` counts the faults by kind, `requests` holds every request in order.
    """

    def __init__(
        self, server: S3Server, *, conditions: Literal["heeded", "ignored", "refused"] = "heeded"
    ) -> None:
        self._target = urlsplit(server.endpoint_url)
        self._conditions = conditions
        self._lock = threading.Condition()
        self._waiting: list[tuple[str, str]] = []
        self._storm: _Storm | None = None
        self._calm = threading.Event()
        self.requests: list[str] = []
        self.injected: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _pass_on(self) -> None:
                proxy.handle(self)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.server = S3Server(
            endpoint_url=f"http://127.0.0.1:{self._http.server_port}", bucket=server.bucket
        )

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.calm()
        self._http.shutdown()
        self._thread.join()
        self._http.socket.close()  # without waiting for connections that clients keep open

    def spoil(self, method: str, *faults: str, part: str = "") -> None:
        """Queues faults for the coming requests of a method whose path and query contain `part`."""
        with self._lock:
            self._waiting += [(f"{method} {part}", fault) for fault in faults]

    def storm(self, rate: float, faults: Sequence[str], *, seed: int, method: str = "") -> None:
        """From now until `calm`, every request (of that method) suffers one of the faults with probability
        `rate`. A second storm takes the place of the first."""
        with self._lock:
            self._storm = _Storm(rate, tuple(faults), method, random.Random(seed))

    def outage(self) -> None:
        """From now until `calm`, every request is answered with 503."""
        self.storm(1.0, ["503 ServiceUnavailable"], seed=0)

    def calm(self) -> None:
        """Ends the storm, and lets go of what is stalled. Faults that wait in line stay there."""
        with self._lock:
            self._storm = None
            self._calm.set()
            self._calm = threading.Event()

    def wait_for(self, fault: str, count: int = 1, *, timeout_seconds: float = 60) -> None:
        """Returns once so many faults of a kind have been injected. TimeoutError when they don't come."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.injected[fault] >= count, timeout_seconds):
                raise TimeoutError(f"{self.injected[fault]} of {count} times {fault}")

    @property
    def unused(self) -> int:
        """How many faults still wait for their request."""
        return len(self._waiting)

    def fault_for(self, request: str) -> tuple[str | None, threading.Event]:
        """What a request suffers, and what ends it if that is a stall."""
        with self._lock:
            self.requests.append(request)
            fault = self._waiting_fault(request) or (self._storm.fault(request) if self._storm else None)
            if fault:
                self.injected[fault] += 1
                self._lock.notify_all()
            return fault, self._calm

    def _waiting_fault(self, request: str) -> str | None:
        for i, (pattern, fault) in enumerate(self._waiting):
            method, part = pattern.split(" ", 1)
            if request.startswith(method + " ") and part in request:
                del self._waiting[i]
                return fault
        return None

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request, or spoil it."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault, calm = self.fault_for(f"{handler.command} {handler.path}")
        if "If-None-Match" in handler.headers and self._conditions != "heeded":
            del handler.headers["If-None-Match"]
            if self._conditions == "refused":
                fault = fault or "501 NotImplemented"
        if fault == "stall":
            calm.wait()
        if fault in ("reset", "stall"):
            handler.close_connection = True
            return
        if fault and fault[0].isdigit():
            status, code = fault.split(" ", 1)
            text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self._answer(handler, int(status), [("Content-Type", "application/xml")], text)
            return
        connection = http.client.HTTPConnection(self._target.hostname or "", self._target.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(
                handler.command, handler.path, body=body, headers=dict(handler.headers.items())
            )
            answer = connection.getresponse()
            content, headers = answer.read(), answer.getheaders()
        if fault == "lost_reply":
            handler.close_connection = True
            return
        if fault == "flipped_body":
            content = bytes([content[0] ^ 1]) + content[1:]
        self._answer(handler, answer.status, headers, content, cut=fault == "cut_body")

    @staticmethod
    def _answer(
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        cut: bool = False,
    ) -> None:
        handler.send_response_only(status)
        length = str(len(body))
        for name, value in headers:
            if name.lower() == "content-length":
                length = value  # of a HEAD: the object's, with no body
            elif name.lower() not in ("connection", "transfer-encoding"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            handler.close_connection = True
