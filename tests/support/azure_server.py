"""A real Azure Blob Storage over HTTP: Azurite, Microsoft's own emulator, from npm.

Tests on it are left out where there is no `azurite-blob`, unless MAGPIE_RAY_NEEDS_AZURITE is set, as .ci/run
does. `npm install azurite` brings it; MAGPIE_RAY_AZURITE names the command where it is not on the PATH.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

# Azurite's account and key, which its documentation gives to everybody.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def azurite() -> str | None:
    """The command that starts the server; None where there is none."""
    return os.environ.get("MAGPIE_RAY_AZURITE") or shutil.which("azurite-blob")


@dataclass(frozen=True, kw_only=True, slots=True)
class AzureServer:
    """A running server and a container on it. `env` is what a client process needs in its environment."""

    port: int
    container: str

    @property
    def url(self) -> str:
        return f"abfs://{self.container}"

    @property
    def env(self) -> dict[str, str]:
        endpoint = f"http://127.0.0.1:{self.port}/{_ACCOUNT}"
        parts = (
            f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};BlobEndpoint={endpoint};"
        )
        return {"AZURE_STORAGE_CONNECTION_STRING": parts}

    @property
    def storage_options(self) -> dict[str, object]:
        """The same for fsspec, where a test must not touch the environment."""
        return {"connection_string": self.env["AZURE_STORAGE_CONNECTION_STRING"]}


@contextlib.contextmanager
def running_azure_server(container: str = "magpie-test") -> Iterator[AzureServer]:
    """Starts a server with one empty container; ends it on leaving."""
    command = azurite()
    assert command is not None, "no azurite-blob here: npm install azurite, and put its .bin on the PATH"
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
    with subprocess.Popen(
        [command, "--silent", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            server = AzureServer(port=_port_of(process), container=container)
            asyncio.run(_create_container(server))
            yield server
        finally:
            process.kill()


def _port_of(process: subprocess.Popen[str]) -> int:
    """The port that the server says it listens on. One that hangs is ended by the timer."""
    assert process.stdout is not None
    timer = threading.Timer(60, process.kill)
    timer.start()
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"successfully listens? on http://127\.0\.0\.1:(\d+)", line):
                return int(found[1])
    finally:
        timer.cancel()
    raise RuntimeError(f"Azurite did not start: {''.join(said)}")


async def _create_container(server: AzureServer) -> None:
    from azure.storage.blob.aio import BlobServiceClient

    connection = server.env["AZURE_STORAGE_CONNECTION_STRING"]
    async with BlobServiceClient.from_connection_string(connection) as client:
        await client.create_container(server.container)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    if azurite() is None and not os.environ.get("MAGPIE_RAY_NEEDS_AZURITE"):
        pytest.skip("no azurite-blob here: npm install azurite")
    with running_azure_server() as server:
        yield server
