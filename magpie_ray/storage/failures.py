"""What the exceptions of disk and network libraries mean: which may pass, and the remedy for the others.

Owns: reading an exception of any library that fsspec uses. Invariants: nothing here does I/O, and a text
from `scrubbed` holds no credential.
"""

import errno
import functools
from collections.abc import Mapping

from magpie_ray.utils.redaction import scrub, secrets_of

_TRANSIENT_ERRNOS = {errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR}
# Error codes that pass although the HTTP status does not say so.
# NoSuchUpload: the reply to a completion was lost, and the clean-up then found no upload.
# RequestTimeTooSkewed: a clock that jumped is corrected within minutes, and the finished rows can wait for
# that. A clock that is wrong from the start shows at the start: the probe retries for seconds only.
# Throttling: from the service that issues credentials.
_TRANSIENT_CODES = {
    "BadDigest",
    "IncompleteBody",
    "NoSuchUpload",
    "RequestLimitExceeded",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "XAmzContentSHA256Mismatch",
}
_NO_CREDENTIALS = {
    "CredentialRetrievalError",
    "DefaultCredentialsError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
}
_BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_CODES = {"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"}


def answer_of(exc: BaseException | None) -> tuple[int | None, str]:
    """HTTP status and error code of a store's reply, from the exception or the first cause that has them."""
    while exc is not None:
        response = getattr(exc, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status, str(response.get("Error", {}).get("Code", ""))
        for name in ("status", "status_code", "code"):  # aiohttp, Azure, gcsfs
            if isinstance(value := getattr(exc, name, None), int):
                return value, ""
        exc = exc.__cause__
    return None, ""


@functools.cache
def _transient_errors() -> tuple[type[BaseException], ...]:
    # Imported at the first failure: a job on a local disk never needs these libraries.
    from aiohttp import ClientConnectionError, ClientPayloadError
    from botocore.exceptions import ConnectionError as NoConnectionError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (
        ConnectionError,
        TimeoutError,
        ClientConnectionError,
        ClientPayloadError,
        NoConnectionError,  # neither a builtin ConnectionError nor one of s3fs's errors
        *S3_RETRYABLE_ERRORS,
    )


def is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed later. Refusals (credentials, names, full disks) are permanent."""
    status, code = answer_of(exc)
    if code in _TRANSIENT_CODES:
        return True
    if type(exc) in (FileExistsError, FileNotFoundError, PermissionError):  # common: avoid the import
        return False
    if isinstance(exc, _transient_errors()):
        return True
    if status is not None:
        return status in (408, 409, 429) or (status >= 500 and status not in (501, 507))
    return isinstance(exc, OSError) and exc.errno in _TRANSIENT_ERRNOS


def bucket_is_missing(exc: BaseException) -> bool:
    """Whether the whole bucket does not exist, and not only the object."""
    return answer_of(exc)[1] == "NoSuchBucket"


def remedy(exc: Exception) -> str:
    """What the user can do about the failure, as a sentence."""
    status, code = answer_of(exc)
    number = exc.errno if isinstance(exc, OSError) and status is None else None
    if bucket_is_missing(exc):
        return "Create the bucket, or correct output.path."
    if type(exc).__name__ in _NO_CREDENTIALS:
        return "Give credentials: in the environment, by an instance role, or in output.storage_options."
    if code == "RequestTimeTooSkewed":
        return "Set the clock of this machine right; the same command then resumes."
    if code in _BAD_CREDENTIALS:
        return "The credentials are wrong or have expired: renew them; the same command then resumes."
    if number in _FULL or code in _FULL_CODES or status == 507:
        return "Free some space or raise the quota; the same command then resumes."
    if status in (401, 403) or (isinstance(exc, PermissionError) and status is not None):
        return (
            "Check that the credentials are valid and allow listing, reading, writing and deleting there; "
            "the same command then resumes."
        )
    if number in (errno.ENOTDIR, errno.EACCES, errno.EROFS):
        return "Choose an output.path that is, or can become, a directory this user may write to."
    if number is not None and getattr(exc, "filename2", None) is not None:  # os.link failed
        return "Exclusive creation needs a file system with hard links: choose another output.path."
    if is_transient(exc):
        return "Check the endpoint and the network; once the store answers, the same command resumes."
    return "Check output.path and output.storage_options."


def scrubbed(exc: BaseException | None, options: Mapping[str, object]) -> str:
    """Type, code and text of an exception, without the credentials in the storage options or environment."""
    code = answer_of(exc)[1]
    name = f"{type(exc).__name__} ({code})" if code and code not in str(exc) else type(exc).__name__
    return scrub(f"{name}: {exc}".rstrip(":. "), secrets_of({}, options))
