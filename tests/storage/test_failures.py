"""Which failures pass, and what the user is told about the others."""

import contextlib
import errno
import http.client
import logging
import os
import socket

import aiohttp
import azure.core.exceptions
import botocore.exceptions
import botocore.httpchecksum
import botocore.session
import fsspec
import gcsfs.retry
import google.auth.exceptions
import pytest
import requests
import urllib3
from azure.storage.blob import StorageErrorCode
from fsspec.implementations.memory import MemoryFileSystem
from s3fs.errors import translate_boto_error

from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.storage.failures import Verdict, is_transient, remedy, verdict
from magpie_ray.storage.retries import Access, Patience
from magpie_ray.storage.storage import Storage
from tests.storage.places import on_s3
from tests.support.s3_server import FaultProxy, S3Server


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (400, "RequestTimeout", True),
        (400, "Throttling", True),
        (403, "RequestTimeTooSkewed", True),
        (409, "OperationAborted", True),
        (409, "ConditionalRequestConflict", True),
        (429, "TooManyRequests", True),
        (500, "InternalError", True),
        (503, "ServiceUnavailable", True),
        (501, "NotImplemented", False),
        (507, "XMinioStorageFull", False),
        (400, "ExpiredToken", False),
        (403, "InvalidAccessKeyId", False),
        (403, "AccessDenied", False),
        (403, "SignatureDoesNotMatch", False),
        (404, "NoSuchBucket", False),
        (412, "PreconditionFailed", False),
    ],
)
def test_which_answers_of_a_store_pass(status: int, code: str, passes: bool) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    raised = botocore.exceptions.ClientError(answer, "PutObject")
    assert is_transient(translate_boto_error(raised)) is passes


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def raised_by_gcsfs(status: int, text: str = "{}") -> Exception:
    with pytest.raises(Exception) as error:  # noqa: PT011  whatever it makes of a reply
        gcsfs.retry.validate_response(status, text.encode(), "b/key")
    return error.value


def raised_by_azure(status: int, code: str) -> Exception:
    error = azure.core.exceptions.HttpResponseError(code)
    error.status_code, error.error_code = status, StorageErrorCode(code)
    return error


class SMBResponseError(Exception):
    """An answer of an SMB server, as smbprotocol raises it."""

    status = 0xC0000022  # access denied


PASSES, DENIED, FINAL, UNKNOWN = Verdict.PASSES, Verdict.DENIED, Verdict.FINAL, Verdict.UNKNOWN
BODY = http.client.IncompleteRead(b"half")


@pytest.mark.parametrize(
    ("error", "found"),
    [
        # What passes: connections, cut and altered bodies, busy services.
        (raised_by_gcsfs(502), PASSES),
        (raised_by_gcsfs(503), PASSES),
        (gcsfs.retry.HttpError({"code": "502", "message": "Bad Gateway"}), PASSES),
        (gcsfs.retry.HttpError({"code": 429}), PASSES),
        (gcsfs.retry.ChecksumError(), PASSES),
        (google.auth.exceptions.TransportError("metadata server"), PASSES),
        (google.auth.exceptions.RefreshError("x", retryable=True), PASSES),
        (raised_from(google.auth.exceptions.RefreshError("x"), requests.ConnectionError()), DENIED),
        (azure.core.exceptions.ServiceRequestError("no connection"), PASSES),
        (azure.core.exceptions.ServiceResponseError("no answer"), PASSES),
        (azure.core.exceptions.ServiceRequestTimeoutError("slow"), PASSES),
        (azure.core.exceptions.IncompleteReadError("half"), PASSES),
        (raised_by_azure(503, "ServerBusy"), PASSES),
        (raised_by_azure(500, "OperationTimedOut"), PASSES),
        (requests.ConnectionError(), PASSES),
        (requests.ReadTimeout(), PASSES),
        (requests.exceptions.ChunkedEncodingError(BODY), PASSES),
        (urllib3.exceptions.ProtocolError("cut", BODY), PASSES),
        (urllib3.exceptions.NewConnectionError(None, "refused"), PASSES),  # type: ignore[arg-type]
        (BODY, PASSES),
        (aiohttp.ClientPayloadError("cut"), PASSES),
        (aiohttp.ServerDisconnectedError(), PASSES),
        (raised_from(aiohttp.ClientPayloadError("cut"), aiohttp.http.HttpProcessingError()), PASSES),
        (aiohttp.SocketTimeoutError(), PASSES),
        (raised_from(ValueError("no body"), aiohttp.ClientPayloadError("cut")), PASSES),
        (botocore.exceptions.EndpointConnectionError(endpoint_url="x"), PASSES),
        (botocore.exceptions.ResponseStreamingError(error="cut"), PASSES),
        (botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), PASSES),
        (botocore.httpchecksum.FlexibleChecksumError(error_msg="crc32"), PASSES),
        (OSError(errno.ENOTCONN, "the server of a mount is away"), PASSES),
        (TimeoutError(), PASSES),
        # What somebody has to mend.
        (botocore.exceptions.NoCredentialsError(), DENIED),
        (botocore.exceptions.CredentialRetrievalError(provider="x", error_msg="y"), DENIED),
        (google.auth.exceptions.DefaultCredentialsError("none"), DENIED),
        (azure.core.exceptions.ClientAuthenticationError("no token"), DENIED),
        (raised_by_azure(403, "AuthenticationFailed"), DENIED),
        (raised_by_azure(404, "ContainerNotFound"), DENIED),
        (raised_by_gcsfs(401), DENIED),
        (raised_by_gcsfs(403), DENIED),
        (PermissionError(errno.EACCES, "a ticket has expired"), DENIED),
        (OSError(errno.EROFS, "mounted anew, read-only"), DENIED),
        (raised_from(PermissionError(errno.EACCES, "denied"), SMBResponseError()), DENIED),
        # What fails again.
        (raised_by_gcsfs(404), FINAL),
        (raised_by_gcsfs(412), FINAL),
        (FileExistsError(), FINAL),
        (OSError(errno.ENOSPC, "full"), FINAL),
        # What is not known here, refused requests among it.
        (raised_by_gcsfs(400, '{"error": {"message": "invalid"}}'), UNKNOWN),
        (raised_by_azure(400, "InvalidHeaderValue"), UNKNOWN),
        (KeyError("x"), UNKNOWN),
        (OSError(errno.EIO, "a bad disk, or a soft mount"), UNKNOWN),
    ],
    ids=repr,
)
def test_errors_of_all_libraries_are_understood(error: Exception, found: Verdict) -> None:
    assert verdict(error) is found


REFUSALS = [
    ("400 ExpiredToken", "have expired: renew them; the same command then resumes"),
    ("403 InvalidAccessKeyId", "renew them; the same command then resumes"),
    ("403 SignatureDoesNotMatch", "renew them; the same command then resumes"),
    ("403 QuotaExceeded", "Free some space or raise the quota; the same command then resumes"),
    ("507 XMinioStorageFull", "Free some space or raise the quota; the same command then resumes"),
    ("404 NoSuchBucket", "Create the bucket"),
]


def no_socket(number: int) -> Exception:
    """As aiohttp and botocore wrap it."""
    error = OSError(number, os.strerror(number))
    return raised_from(botocore.exceptions.EndpointConnectionError(endpoint_url="x"), error)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/out/x"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (no_socket(errno.EMFILE), "ulimit -n"),
        (no_socket(errno.ENFILE), "fs.file-max"),
    ],
)
def test_a_limit_of_the_process_is_no_failure_of_the_store(error: Exception, told: str) -> None:
    assert verdict(error) is Verdict.LIMIT
    assert is_transient(error), "others may close their files"
    assert told in remedy(error)
    assert Patience(retry=3600.0).seconds("create", error, Access()) == 120.0, "at first contact, too"
    assert Patience(retry=20.0).seconds("create", error, Access()) == 20.0


@pytest.mark.parametrize(("fault", "remedy"), REFUSALS)
def test_what_does_not_pass_is_reported_at_once_with_its_code_and_what_to_do(
    proxy: FaultProxy, fault: str, remedy: str
) -> None:
    storage = on_s3(proxy.server, denied_seconds=0)
    storage.create("data/a", b"x")
    proxy.storm(1.0, [fault], seed=0)
    actions = {
        "create": lambda: storage.create("data/b", b"y"),
        "read": lambda: storage.read("data/a"),
        "look for": lambda: storage.exists("data/a"),  # by a HEAD, whose answer has no room for the code
        "list": lambda: storage.list_objects("data"),
    }
    for verb, action in actions.items():
        message = f"Could not {verb} s3://.*{fault.split()[1]}.*{remedy}"
        with pytest.raises(StorageError, match=message) as error:
            action()
        assert "tried for" not in str(error.value)
    proxy.calm()
    storage.create("data/b", b"y")


def test_a_bucket_that_is_deleted_in_the_middle_is_waited_for_and_then_named(s3: S3Server) -> None:
    with contextlib.closing(s3.client()) as client:
        client.create_bucket(Bucket="short-lived")
        storage = Storage("s3://short-lived/x", s3.storage_options, denied_seconds=0.3)
        assert storage.probe()
        client.delete_bucket(Bucket="short-lived")
    with pytest.raises(StorageError, match=r"NoSuchBucket.*tried for \d+ s.*Create the bucket"):
        storage.create("data/a", b"x")


def test_a_clock_that_is_set_right_meanwhile_loses_nothing(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    skewed = "403 RequestTimeTooSkewed"
    proxy.spoil("PUT", skewed)
    proxy.spoil("HEAD", skewed)
    proxy.spoil("GET", skewed, part="data/a")
    storage.create("data/a", b"x")
    assert (proxy.unused, storage.read("data/a")) == (0, b"x")
    proxy.storm(1.0, [skewed], seed=0)
    with pytest.raises(StorageError, match=r"tried for.*Set the clock of this machine right"):
        storage.retrying_for(0.2).create("data/b", b"x")


def test_an_endpoint_that_refuses_connections_is_tried_again(s3: S3Server) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        options = s3.storage_options | {"endpoint_url": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        down = Storage(f"s3://{s3.bucket}/x", options, retry_seconds=0.1)
        with pytest.raises(StorageError, match=r"Could not connect.*tried for.*once the store answers"):
            down.create("data/a", b"x")


def test_refused_credentials_are_not_retried(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "403 AccessDenied")
    with pytest.raises(StorageError, match=r"Could not create s3://.*Check that the credentials"):
        storage.create("data/a", b"x")
    assert [request.split()[0] for request in proxy.requests] == ["PUT"]
    assert not storage.exists("data/a")


class Talkative(MemoryFileSystem):
    """A library that puts its password into its messages."""

    protocol = "talkative"

    def __init__(
        self, password: str = "", client_kwargs: dict[str, str] | None = None, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.password, self.token = password, (client_kwargs or {}).get("token")

    def mv(self, path1: str, path2: str, **kwargs: object) -> None:
        raise NotImplementedError

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        raise ConnectionError(f"login with {self.password} and {self.token} at {path} failed")


def test_no_secret_is_in_a_message_a_log_or_a_repr(caplog: pytest.LogCaptureFixture) -> None:
    fsspec.register_implementation("talkative", Talkative, clobber=True)
    caplog.set_level(logging.DEBUG, logger="magpie_ray")
    options = {"password": "hunter2-secret", "client_kwargs": {"token": "tok-4711"}}
    storage = Storage("talkative://place/x", options, retry_seconds=0.1, max_wait_seconds=0.01)
    with pytest.raises(StorageError, match="login with \\*\\*\\* and \\*\\*\\*") as stored:
        storage.for_single_writer().create("a", b"x")
    with pytest.raises(PreflightError) as refused:
        storage.probe()
    texts = f"{stored.value} {refused.value} {storage!r} {storage} {storage.url} {caplog.text}"
    assert "trying again" in texts
    assert "hunter2" not in texts
    assert "4711" not in texts


@pytest.mark.parametrize("code", ["XAmzContentSHA256Mismatch", "NotImplemented", "MissingContentLength"])
def test_a_store_that_does_not_know_the_client_s_checksums_is_told_with_the_settings(code: str) -> None:
    reply = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    error = botocore.exceptions.ClientError(reply, "PutObject")
    assert "AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in remedy(error)
