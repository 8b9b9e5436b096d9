"""A real S3 over HTTP: moto's server, as a child process that ends with its parent.

Other processes, Ray actors among them, reach the server through `env`.
"""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3

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

    def client(self) -> Any:
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
