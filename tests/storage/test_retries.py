"""Which failures are waited out, and for how long: what has worked is waited for, what never did is not."""

import contextlib
import http.server
import json
import logging
import pickle
import threading
import time
import uuid
from collections.abc import Iterator

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.storage.retries import Access, Patience
from magpie_ray.storage.storage import Storage
from tests.storage.places import on_s3
from tests.support.s3_server import FaultProxy, S3Server

DENIALS = [
    "403 AccessDenied",
    "400 ExpiredToken",
    "403 InvalidAccessKeyId",
    "403 SignatureDoesNotMatch",
    "401 Unauthorized",
    "404 NoSuchBucket",
]


@pytest.mark.parametrize("fault", DENIALS)
def test_access_that_has_worked_is_waited_for_with_a_loud_line(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x")
    storage.read("data/a")
    proxy.spoil("PUT", *[fault] * 3)
    storage.create("data/b", b"y")
    proxy.spoil("GET", *[fault] * 3)
    assert (storage.read("data/b"), proxy.unused) == (b"y", 0)
    loud = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(loud) == 6
    assert "Access to the output is refused, though it worked before: could not create s3://" in loud[0]
    assert fault.split()[1] in loud[0]
    assert "This run waits for up to 300 s" in loud[0]


def test_an_upload_whose_key_is_not_found_is_waited_out(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x")
    proxy.spoil("PUT", "404 NoSuchKey", "404 NoSuchKey")
    storage.create("data/b", b"y")
    assert (proxy.unused, storage.read("data/b")) == (0, b"y")


@pytest.mark.parametrize("fault", DENIALS)
def test_access_that_has_never_worked_is_refused_at_once(proxy: FaultProxy, fault: str) -> None:
    proxy.storm(1.0, [fault], seed=0)
    with pytest.raises(PreflightError, match=r"can't be used") as error:
        on_s3(proxy.server).probe()
    assert "tried for" not in str(error.value)


def test_a_worker_without_a_role_is_refused_at_its_first_request(proxy: FaultProxy) -> None:
    """Though the driver's requests have worked: one node in hundreds may lack the permission."""
    storage = on_s3(proxy.server)
    assert storage.probe()
    storage.create("_magpie/build.json", b"{}")
    worker = pickle.loads(pickle.dumps(storage))
    proxy.storm(1.0, ["403 AccessDenied"], seed=0)
    with pytest.raises(StorageError) as error:
        worker.read("_magpie/build.json")
    assert "tried for" not in str(error.value)


def test_a_worker_that_reads_waits_for_its_first_upload_because_the_drivers_worked(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("_magpie/build.json", b"{}")
    storage.read("_magpie/build.json")
    worker = pickle.loads(pickle.dumps(storage))
    worker.read("_magpie/build.json")
    proxy.spoil("PUT", "403 AccessDenied", "403 AccessDenied")
    worker.create("data/a", b"x")
    assert proxy.unused == 0


def test_waiting_for_access_ends_sooner_than_waiting_for_an_outage(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server, denied_seconds=0.3)
    storage.create("data/a", b"x")
    proxy.storm(1.0, ["403 AccessDenied"], seed=0)
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"tried for \d+ s.*Check that the credentials"):
        storage.create("data/b", b"y")
    assert time.monotonic() - began < 30


class OddError(Exception):
    """An error of no library that is known here."""


def test_how_long_each_failure_is_tried_again() -> None:
    patience = Patience(retry=600, denied=300, unknown=120)
    fresh, known = Access(), Access()
    for verb in ("create", "read", "list", "delete"):
        known.note(verb)
    denied, unknown, passes, full = (
        PermissionError(1, "no"),
        OddError(),
        ConnectionError(),
        OSError(28, "full"),
    )
    assert patience.seconds("create", passes, fresh) == patience.seconds("read", passes, known) == 600
    assert [patience.seconds(v, denied, known) for v in ("create", "write", "read", "list")] == [300] * 4
    assert [patience.seconds(v, denied, fresh) for v in ("create", "write", "read", "list")] == [0] * 4
    assert [patience.seconds(v, unknown, known) for v in ("create", "write", "read", "list")] == [120] * 4
    assert patience.seconds("create", unknown, fresh) == 0
    assert patience.seconds("create", full, known) == 0
    assert patience.seconds("create", FileNotFoundError(), known) == 300
    assert patience.seconds("read", FileNotFoundError(), known) == 0


class Moody(MemoryFileSystem):
    """Memory whose next uploads fail as told."""

    failures: list[Exception] = []  # noqa: RUF012

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        if self.failures:
            raise self.failures.pop()
        super().pipe_file(path, value, **kwargs)


@pytest.fixture
def moody() -> Iterator[list[Exception]]:
    fsspec.register_implementation("memory", Moody, clobber=True)
    yield Moody.failures
    Moody.failures.clear()
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def test_an_unknown_error_of_an_upload_is_tried_again_once_uploads_have_worked(
    moody: list[Exception],
) -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}", max_wait_seconds=0.01)
    moody.append(OddError("at the start"))
    with pytest.raises(StorageError, match="at the start"):
        storage.create("data/a", b"x")
    storage.create("data/a", b"x")
    moody.extend([OddError(), OddError(), OddError()])
    storage.create("data/b", b"y")
    assert (moody, storage.read("data/b")) == ([], b"y")


def test_a_reply_that_a_client_stumbles_over_is_asked_for_again(
    moody: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"memory://{uuid.uuid4().hex}", max_wait_seconds=0.01)
    storage.create("data/a", b"x")
    assert storage.exists("data/a")
    stumbles = [KeyError("ContentLength"), KeyError("ContentLength")]
    whole = Moody.info

    def info(self: Moody, path: str, **kwargs: object) -> dict[str, object]:
        if stumbles:
            raise stumbles.pop()
        return dict(whole(self, path, **kwargs))

    monkeypatch.setattr(Moody, "info", info)
    assert (storage.size("data/a"), stumbles) == (1, [])


class InstanceMetadata(http.server.ThreadingHTTPServer):
    """The service that gives an instance's role its credentials. busy: so many requests get
    no answer to use."""

    busy = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class MetadataHandler(http.server.BaseHTTPRequestHandler):
    server: InstanceMetadata

    def answer(self) -> None:
        role = {
            "Code": "Success",
            "AccessKeyId": "id",
            "SecretAccessKey": "secret",
            "Token": "token",
            "Expiration": "2099-01-01T00:00:00Z",
        }
        text = "role" if self.path.endswith("credentials/") else json.dumps(role)
        self.send_response(429 if self.server.busy else 200)
        self.server.busy = max(0, self.server.busy - 1)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_PUT = answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def instance_metadata() -> Iterator[InstanceMetadata]:
    with InstanceMetadata(("127.0.0.1", 0), MetadataHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_worker_asks_again_for_the_credentials_of_its_role(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of actors ask the service at once, and a client that got none never asks again by itself."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with instance_metadata() as service:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        options = {"endpoint_url": s3.endpoint_url, "client_kwargs": {"region_name": "us-east-1"}}
        driver = Storage(f"s3://{s3.bucket}/{uuid.uuid4().hex}", options, max_wait_seconds=0.02)
        service.busy = 2
        with pytest.raises(PreflightError, match="Give credentials"):  # nothing has worked here yet
            driver.probe()
        service.busy = 0
        assert pickle.loads(pickle.dumps(driver)).probe()
        driver = pickle.loads(pickle.dumps(driver))
        driver.create("_magpie/build.json", b"{}")
        driver.read("_magpie/build.json")
        service.busy = 4
        worker = pickle.loads(pickle.dumps(driver))
        assert worker.read("_magpie/build.json") == b"{}"
        assert (service.busy, worker.retries > 0) == (0, True)
