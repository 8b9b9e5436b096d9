"""What disk and network libraries raise: which of it passes, and what to do about the rest.

Owns: reading an exception of any library that fsspec uses. What always holds: nothing here does I/O, and a
text that leaves through `scrubbed` holds no credential.
"""

import errno
import functools
import os
from collections.abc import Iterator, Mapping

_PASSING_ERRNOS = {errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT, errno.EINTR}
# NoSuchUpload: a completion whose answer was lost and whose clean-up then found the upload gone.
_PASSING_CODES = {
    "BadDigest",
    "IncompleteBody",
    "NoSuchUpload",
    "RequestTimeout",
    "XAmzContentSHA256Mismatch",
}
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "DefaultCredentialsError",
}
_PUBLIC_OPTIONS = {"endpoint_url", "region_name", "profile", "project", "account_name"}
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def answer_of(exc: BaseException | None) -> tuple[int | None, str]:
    """HTTP status and error code of what a store answered, as far as the exception or its causes know."""
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
def _passing_errors() -> tuple[type[BaseException], ...]:
    # Imported when something fails: a job on a local disk never needs them.
    from aiohttp import ClientConnectionError, ClientPayloadError
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (ConnectionError, TimeoutError, ClientConnectionError, ClientPayloadError, *S3_RETRYABLE_ERRORS)


def is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed later. Refusals (credentials, names, full disks) may not."""
    status, code = answer_of(exc)
    if code in _PASSING_CODES:
        return True
    if type(exc) in (FileExistsError, FileNotFoundError, PermissionError):  # everyday: spares the import
        return False
    if isinstance(exc, _passing_errors()):
        return True
    if status is not None:
        return status in (408, 409, 429) or (status >= 500 and status != 501)
    return isinstance(exc, OSError) and exc.errno in _PASSING_ERRNOS


def bucket_is_missing(exc: BaseException) -> bool:
    """Whether it is not the object but the whole bucket that does not exist."""
    return answer_of(exc)[1] == "NoSuchBucket"


def remedy(exc: Exception) -> str:
    """What the reader of the message can do, as a sentence."""
    status, _ = answer_of(exc)
    number = exc.errno if isinstance(exc, OSError) and status is None else None
    if bucket_is_missing(exc):
        return "Create the bucket, or correct output.path."
    if type(exc).__name__ in _NO_CREDENTIALS:
        return "Give credentials: in the environment, by an instance role, or in output.storage_options."
    if status in (401, 403) or (isinstance(exc, PermissionError) and status is not None):
        return "Check that the credentials are valid and allow to list, read, write and delete there."
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space or raise the quota; the same command then resumes."
    if number in (errno.ENOTDIR, errno.EACCES, errno.EROFS):
        return "Choose an output.path that is, or can become, a directory this user may write to."
    if number is not None and getattr(exc, "filename2", None) is not None:  # a link
        return "Exclusive creation needs a file system with hard links: choose another output.path."
    if is_transient(exc):
        return "Check the endpoint and the network; once the store answers, the same command resumes."
    return "Check output.path and output.storage_options."


def scrubbed(exc: BaseException | None, options: Mapping[str, object]) -> str:
    """Type and text of an exception, without the credentials in the storage options or the environment."""
    text = f"{type(exc).__name__}: {exc}".rstrip(":. ")
    for secret in [*_secrets(options), *(os.environ.get(name, "") for name in _SECRET_VARIABLES)]:
        text = text.replace(secret, "***") if len(secret) > 3 else text
    return text


def _secrets(value: object) -> Iterator[str]:
    """The texts in storage options that may be secret: all but those known to be public."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _PUBLIC_OPTIONS:
                yield from _secrets(inner)
