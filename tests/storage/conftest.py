"""The servers and places that the tests of storage share."""

import functools
import uuid
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import botocore.session
import pytest

from magpie_ray.storage.storage import Storage
from tests.storage.places import PART, on_s3
from tests.support.ftp_server import ftp_server as ftp_server
from tests.support.s3_server import FaultProxy, S3Server, running_s3_server

PLACES = ["local", "memory", "s3", "azure", "gcs"]


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server that takes small parts, and clients that parse S3's description once and not each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3_UPLOAD_PART_MIN_SIZE", str(PART))
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        with running_s3_server() as server:
            yield server


@pytest.fixture(params=PLACES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "output"))
    if request.param == "memory":
        return Storage(f"memory://{uuid.uuid4().hex}")
    if request.param == "s3":
        return on_s3(request.getfixturevalue("s3"))
    server = request.getfixturevalue(f"{request.param}_server")
    return Storage(f"{server.url}/{uuid.uuid4().hex}", server.storage_options, max_wait_seconds=0.02)


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3) as proxy:
        yield proxy
