"""What the exceptions of disk and network libraries mean: which may pass, and the remedy for the others.

Owns: reading an exception of any library that fsspec uses. An exception is known by its errno, by the HTTP
status and error code of the store's reply, and by the names of its classes and of their causes, so that no
library is imported for it. Invariants: nothing here does I/O, and a text from `scrubbed` holds no credential.
"""

import errno
from collections.abc import Iterator, Mapping
from enum import StrEnum

from magpie_ray.utils.limits import limit_remedy, reaches_limit
from magpie_ray.utils.redaction import scrub, secrets_of


class Verdict(StrEnum):
    """What a failure says about the same request, made again later.

    PASSES: it may succeed at any moment. DENIED: it succeeds once somebody has mended access: credentials, a
    policy, the bucket. FINAL: it fails again. LIMIT: this process or machine may open no more files or start
    no more threads, which says nothing of the store and may pass. UNKNOWN: no library or store that is known
    here says this.
    """

    PASSES = "passes"
    LIMIT = "limit"
    DENIED = "denied"
    FINAL = "final"
    UNKNOWN = "unknown"


_TRANSIENT_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    # The server behind a mount is away.
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ENOTCONN,
    errno.EREMOTEIO,
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_PERMITTED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_HARD_LINKS = {errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP}
_FINAL_ERRNOS = (
    _FULL | _NO_HARD_LINKS | {errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV}
)

# Error codes that pass although the HTTP status does not say so.
# NoSuchUpload: the reply to a completion was lost, and the clean-up then found no upload.
# RequestTimeTooSkewed: a clock that jumped is corrected within minutes, and the finished rows can wait for
# that. A clock that is wrong from the start shows at the start: the probe retries for seconds only.
# Throttling: from the service that issues credentials.
_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InvalidBlockList",
    "Md5Mismatch",
    "NoSuchUpload",
    "OperationTimedOut",
    "RequestLimitExceeded",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServerBusy",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
# Class names of connections that break, of replies that are cut or altered, and of credential services that
# do not answer, in builtins, http.client, socket; botocore; aiohttp; requests, urllib3; httpx; azure-core;
# google-auth, google-api-core, google-resumable-media, gcsfs; fsspec, paramiko, asyncssh, smbprotocol, ftplib
_TRANSIENT_NAMES = {
    "AioReadTimeoutError",
    "ChannelException",
    "ChecksumError",
    "ChunkedEncodingError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "ConnectionLost",
    "ContentDecodingError",
    "DataCorruption",
    "DeadlineExceeded",
    "DecodeError",
    "EOFError",
    "FSTimeoutError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "HTTPError",
    "IncompleteRead",
    "IncompleteReadError",
    "InternalServerError",
    "InvalidMetadataError",
    "MetadataRetrievalError",
    "ProtocolError",
    "ProxyError",
    "ReadTimeoutError",
    "ResourceExhausted",
    "ResponseParserError",
    "ResponseStreamingError",
    "RetryError",
    "SMBConnectionClosed",
    "SSHException",
    "ServerDisconnectedError",
    "ServiceRequestError",
    "ServiceResponseError",
    "ServiceUnavailable",
    "StreamClosedError",
    "TimeoutError",
    "Timeout",
    "TooManyRequests",
    "TransportError",
    "error_temp",
    "gaierror",
}
_NO_CREDENTIALS = {
    "AuthenticationException",
    "ClientAuthenticationError",
    "CredentialRetrievalError",
    "CredentialUnavailableError",
    "DefaultCredentialsError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionDenied",
    "ProfileNotFound",
    "RefreshError",
    "SSOTokenLoadError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}
_BAD_CREDENTIALS = {
    "AccountIsDisabled",
    "AuthenticationFailed",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidAuthenticationInfo",
    "InvalidToken",
    "NoAuthenticationInformation",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_NO_BUCKET = {"ContainerBeingDeleted", "ContainerNotFound", "NoSuchBucket"}
_FULL_CODES = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}
# How S3 stores refuse the checksums that AWS's client sends by default, those that tell so.
_CHECKSUM_CODES = {"InvalidDigest", "MissingContentLength", "NotImplemented", "XAmzContentSHA256Mismatch"}
# SMB and SFTP have statuses and codes of other kinds under the same names.
_HTTP_STATUSES = range(100, 600)
# Refusals of a request as it stands, whoever makes it.
_FINAL_STATUSES = {405, 411, 412, 413, 414, 416, 501, 507}


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it was raised from."""
    seen = set[int]()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)


def answer_of(exc: BaseException | None) -> tuple[int | None, str]:
    """HTTP status and error code of a store's reply, from the exception or the first cause that has them."""
    for one in _chain(exc):
        if any(cls.__name__ == "HttpProcessingError" for cls in type(one).__mro__):
            continue  # aiohttp can't parse what came; its code is not the store's
        response = getattr(one, "response", None)
        if isinstance(response, Mapping):  # botocore
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        for name in ("status", "status_code", "code"):  # aiohttp, Azure and requests, gcsfs
            value = getattr(one, name, getattr(response, name, None))
            if isinstance(value, str) and value.isdecimal() and len(value) == 3:
                value = int(value)
            if isinstance(value, int) and value in _HTTP_STATUSES:
                code = getattr(one, "error_code", None)  # Azure: a text, or an enumeration of texts
                return value, str(getattr(code, "value", code) or "")
    return None, ""


def verdict(exc: BaseException) -> Verdict:
    """Whether the same request may succeed later."""
    if any(map(reaches_limit, _chain(exc))):  # libraries wrap it as a connection that failed
        return Verdict.LIMIT
    status, code = answer_of(exc)
    names = {cls.__name__ for one in _chain(exc) for cls in type(one).__mro__}
    if code in _TRANSIENT_CODES or any(getattr(one, "retryable", False) is True for one in _chain(exc)):
        return Verdict.PASSES  # google-auth has the attribute
    if bucket_is_missing(exc) or code in _BAD_CREDENTIALS or names & _NO_CREDENTIALS:
        return Verdict.DENIED
    if isinstance(exc, FileExistsError | FileNotFoundError) or code in _FULL_CODES:
        return Verdict.FINAL
    if status in (401, 403) or str(exc).startswith("Forbidden: "):  # so gcsfs tells a 403
        return Verdict.DENIED
    if status is None and isinstance(exc, OSError) and exc.errno in _NOT_PERMITTED:
        return Verdict.DENIED
    if status in _FINAL_STATUSES or (
        status is None and isinstance(exc, OSError) and exc.errno in _FINAL_ERRNOS
    ):
        return Verdict.FINAL
    if status is not None and (status in (408, 409, 425, 429) or status >= 500):
        return Verdict.PASSES
    if (status is None or status < 400) and names & _TRANSIENT_NAMES:
        return Verdict.PASSES
    if status is None and isinstance(exc, OSError) and exc.errno in _TRANSIENT_ERRNOS:
        return Verdict.PASSES
    return Verdict.UNKNOWN


def is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed at any moment, with nothing mended."""
    return verdict(exc) in (Verdict.PASSES, Verdict.LIMIT)


def lacks_credentials(exc: BaseException) -> bool:
    """Whether the client found no credentials to ask with. A new client looks for them again."""
    return any(cls.__name__ in _NO_CREDENTIALS for one in _chain(exc) for cls in type(one).__mro__)


def bucket_is_missing(exc: BaseException) -> bool:
    """Whether the whole bucket does not exist, and not only the object."""
    return answer_of(exc)[1] in _NO_BUCKET


def is_full(exc: BaseException) -> bool:
    """Whether there is no room for the object."""
    status, code = answer_of(exc)
    number = exc.errno if isinstance(exc, OSError) and status is None else None
    return number in _FULL or code in _FULL_CODES or status == 507


def remedy(exc: BaseException) -> str:
    """What the user can do about the failure, as a sentence."""
    if limit := next(filter(reaches_limit, _chain(exc)), None):
        number = limit.errno if isinstance(limit, OSError) else ""
        return f"{limit_remedy(f'[Errno {number}] {limit}')}."
    status, code = answer_of(exc)
    number = exc.errno if isinstance(exc, OSError) and status is None else None
    if bucket_is_missing(exc) or (isinstance(exc, FileNotFoundError) and not is_transient(exc)):
        return "Create the bucket, or correct output.path."
    if lacks_credentials(exc) and status is None:
        return "Give credentials: in the environment, by an instance role, or in output.storage_options."
    if code in _CHECKSUM_CODES or "checksum" in f"{type(exc).__name__} {exc}".lower():
        return (
            "If the store does not know the newer checksums of AWS's client: export "
            "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and "
            "AWS_RESPONSE_CHECKSUM_VALIDATION=when_required, on every node; the same command then resumes."
        )
    if code == "RequestTimeTooSkewed":
        return "Set the clock of this machine right; the same command then resumes."
    if code in _BAD_CREDENTIALS:
        return "The credentials are wrong or have expired: renew them; the same command then resumes."
    if is_full(exc):
        return "Free some space or raise the quota; the same command then resumes."
    if status in (401, 403) or (isinstance(exc, PermissionError) and status is not None):
        return (
            "Check that the credentials are valid and allow listing, reading, writing and deleting there; "
            "the same command then resumes."
        )
    if number == errno.EPERM:
        return (
            "The system does not permit it, even to a user who may write there: a folder or file may be "
            "immutable or append-only (`lsattr -d` shows it), or a security policy forbids it."
        )
    if number == errno.EISDIR:
        return "Move it away, then run the same command again."
    if number in (errno.ENOTDIR, errno.EACCES, errno.EROFS):
        return "Choose an output.path that is, or can become, a directory this user may write to."
    if number in _NO_HARD_LINKS:
        return (
            "Exclusive creation needs a file system with hard links: choose another output.path, or set "
            "output.single_writer: true and make sure that there is never more than one run at a time."
        )
    if is_transient(exc):
        return "Check the endpoint and the network; once the store answers, the same command resumes."
    return "Check output.path and output.storage_options."


def scrubbed(exc: BaseException | None, options: Mapping[str, object]) -> str:
    """Type, code and text of an exception, without the credentials in the storage options or environment."""
    code = answer_of(exc)[1]
    name = f"{type(exc).__name__} ({code})" if code and code not in str(exc) else type(exc).__name__
    return scrub(f"{name}: {exc}".rstrip(":. "), secrets_of({}, options))
