"""A real S3 over HTTP for tests, and a proxy in front of it that breaks things on request.

Owns: the server process (moto, a child that ends with its parent) and the fault proxy (a thread). Other
processes, Ray actors among them, reach both through `env`. Nothing here sleeps to wait.
"""

import contextlib
import http.client
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

import boto3
import pytest

# The server picks its own port, so that no other process can take it in between, and says which one it is. It
# ends when its standard input closes: even a test process that is killed leaves none behind.
# Writes go in one at a time: moto looks whether a condition holds and then writes, with room for another in
# between (three of three racing multipart completions won), where S3 does both in one step. Bodies are read
# before that, so that a stalled client holds up nobody.
_SERVER = """
import io, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

moto = DomainDispatcherApplication(create_backend_app)
writing = threading.Lock()

def s3(environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        return moto(environ, start_response)
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with writing:
        return moto(environ, start_response)

server = make_server("127.0.0.1", 0, s3, threaded=True, request_handler=MotoRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(server.port, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Server:
    """A running server and a bucket on it. `env` is what a client process needs in its environment."""

    endpoint_url: str
    bucket: str

    @property
    def env(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "testing-key-id",
            "AWS_SECRET_ACCESS_KEY": "testing-secret-key",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    @property
    def storage_options(self) -> dict[str, object]:
        """The same for fsspec, where a test must not touch the environment."""
        return {
            "endpoint_url": self.endpoint_url,
            "key": self.env["AWS_ACCESS_KEY_ID"],
            "secret": self.env["AWS_SECRET_ACCESS_KEY"],
            "client_kwargs": {"region_name": self.env["AWS_DEFAULT_REGION"]},
        }

    def client(self):  # type: ignore[no-untyped-def]
        """A boto3 client: a second pair of eyes that shares no code with what is tested."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
            region_name=self.env["AWS_DEFAULT_REGION"],
        )


@contextlib.contextmanager
def running_s3_server(bucket: str = "magpie-test") -> Iterator[S3Server]:
    """Starts a server with one empty bucket; ends it, by its process handle, on leaving."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # one line for every request
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            # A server that can't start ends, which ends this read; one that hangs is ended by the timer.
            timer = threading.Timer(60, process.kill)
            timer.start()
            port = process.stdout.readline().strip()
            timer.cancel()
            if not port:
                raise RuntimeError(
                    f"moto's S3 server did not start; `{sys.executable} -m moto.server` says why"
                )
            server = S3Server(endpoint_url=f"http://127.0.0.1:{port}", bucket=bucket)
            client = server.client()
            client.create_bucket(Bucket=bucket)
            client.close()
            yield server
        finally:
            process.kill()


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
    body), `stall` (no answer, not done, the connection stays open until `calm`), or an HTTP status with an S3
    error code, as in `"503 SlowDown"`.

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
                proxy._handle(self)

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

    def _fault_for(self, request: str) -> tuple[str | None, threading.Event]:
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

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        fault, calm = self._fault_for(f"{handler.command} {handler.path}")
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
