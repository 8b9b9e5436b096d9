"""Whole objects under one output URL, created exclusively and atomically.

Owns: every byte that goes to or comes from the output location, the retries of that traffic, and the
translation of what disk and network libraries raise. What always holds:

- An object is seen whole or not at all. On a local disk its bytes are synced under `_magpie/tmp/` before
  they get their name; object stores get one conditional PUT, or parts whose completion is conditional.
- Of several creations of one key with different bytes exactly one returns; the others raise
  `AlreadyExistsError`. Equal bytes may both return: a repeated request can't be told from a twin, so who must
  know that it won (a numbered run, a lease) writes something nobody else writes.
- Failures that pass are retried in one place, here, for a bounded time. The retries inside s3fs and botocore
  are off: they would multiply the bound.
- No credential is in a message, a repr or `url`.
"""

import errno
import functools
import importlib.util
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import fsspec
import tenacity
from fsspec.registry import known_implementations, registry

from magpie_ray.errors import AlreadyExistsError, PreflightError, StorageError

log = logging.getLogger(__name__)
T = TypeVar("T")

# Throttling may last minutes, and a finished partition is about five minutes of one actor: waiting this long
# for the store is cheaper than generating again. Longer would look like a hang.
RETRY_SECONDS = 600.0
# Whoever starts a job is watching: a wrong endpoint should show soon, a hiccup should not stop the start.
PROBE_SECONDS = 20.0
# Parts small enough that a failed one is cheap and several travel at once; two of them or more go in parts.
PART_BYTES = 32 * 2**20
# With hundreds of writers at once, waits must spread (full jitter) and not grow past what throttling needs.
MAX_WAIT_SECONDS = 20.0
# No upload takes a day: what is older was left by a process that died, whatever the clocks say.
LEFTOVER_SECONDS = 86_400.0

_TEMPORARY = "_magpie/tmp"
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
_MEMORY_LOCK = threading.Lock()


class ObjectNotFoundError(StorageError):
    """There is no object under that key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object as a listing shows it. `key` is relative to the output; `size` is in bytes."""

    key: str
    size: int


class Storage:
    """One output location: a local path or any URL fsspec knows. Picklable, and safe to share among threads.

    Making one does no I/O and imports no client library. `retry_seconds` bounds how long one call keeps
    trying. With `exclusive=False`, for stores whose `probe` says no, `create` looks and then writes: that is
    safe for one writer only.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, object] | None = None,
        *,
        exclusive: bool = True,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._protocol, self.url = _parse(url)
        self._options = dict(storage_options or {})
        self._exclusive = exclusive
        self._retry_seconds = retry_seconds
        self._opened: tuple[int, _Backend] | None = None

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None}

    def display(self, key: str) -> str:
        """The full URL of a key, for messages."""
        return f"{self.url}/{key}".rstrip("/")

    def create(self, key: str, data: bytes) -> None:
        """Creates an object that must not exist. Raises `AlreadyExistsError` when somebody else was first."""
        tries = 0

        def attempt(backend: _Backend) -> None:
            nonlocal tries
            tries += 1
            # After a failure the object may be ours already: looking is cheaper than a second upload.
            backend.create(key, data, look_first=tries > 1)

        self._call("create", key, attempt)

    def replace(self, key: str, data: bytes) -> None:
        """Writes an object in one step, over an earlier one if there is one."""
        self._call("write", key, lambda backend: backend.replace(key, data))

    def read(self, key: str) -> bytes:
        """All bytes of an object. Raises `ObjectNotFoundError` when there is none."""
        return self._call("read", key, lambda backend: backend.read(key))

    def read_tail(self, key: str, nbytes: int) -> bytes:
        """The last `nbytes` of an object, or all of a smaller one, in one request."""
        if nbytes <= 0:
            raise ValueError(f"nbytes must be positive, not {nbytes}")
        return self._call("read", key, lambda backend: backend.read_tail(key, nbytes))

    def exists(self, key: str) -> bool:
        """Whether there is an object (not a directory) under that key."""
        return self._call("look for", key, lambda backend: backend.size(key)) is not None

    def list(self, prefix: str) -> list[StoredObject]:
        """All objects below a directory (`""`: the whole output), by key; none when it does not exist."""
        directory = prefix.strip("/")
        found = self._call("list", directory, lambda backend: backend.list(directory))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        """Removes an object. None there is fine."""
        with suppress(ObjectNotFoundError):
            self._call("delete", key, lambda backend: backend.delete(key))

    def remove_leftovers(self) -> int:
        """Removes what writers that died left outside data/ over a day ago; returns how many there were."""
        return self._call("clean", _TEMPORARY, lambda backend: backend.remove_leftovers(LEFTOVER_SECONDS))

    def probe(self) -> bool:
        """Writes, reads and deletes a small object: True when a second creation of it is refused.

        Raises `PreflightError`, with what to do about it, when the location can't be used.
        """
        key = f"_magpie/probe-{uuid.uuid4().hex}"
        seconds = min(self._retry_seconds, PROBE_SECONDS)
        quick = Storage(self.url, self._options, retry_seconds=seconds)
        try:
            exclusive = quick._creates_exclusively(key)
            quick.read(key)
            quick.list("_magpie")
            quick.delete(key)
        except StorageError as exc:
            raise PreflightError(f"The output {self.url} can't be used. {exc}") from exc
        return exclusive

    def _creates_exclusively(self, key: str) -> bool:
        try:
            self.create(key, b"first")
        except StorageError as exc:
            if exc.__cause__ is None or _is_transient(exc.__cause__):
                raise
            try:  # perhaps it is only the condition that this store does not take
                self.replace(key, b"first")
            except StorageError:
                raise exc from exc.__cause__
            return False
        try:
            self.create(key, b"second")
        except AlreadyExistsError:
            return True
        return False

    def _backend(self) -> "_Backend":
        # A file system holds a thread and sockets that a forked child can't use, hence one a process. Two
        # threads here at once each open one and the later stays: harmless, unlike a lock held across a fork.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            if self._protocol == "file":
                opened = (os.getpid(), _Local(self.url, self._exclusive))
            else:
                opened = (os.getpid(), _Remote(self._protocol, self.url, self._options, self._exclusive))
            self._opened = opened
        return opened[1]

    def _call(self, verb: str, key: str, action: "Callable[[_Backend], T]") -> T:
        """Runs one operation with retries; whatever a library raises leaves as one of our errors."""
        if (key or verb != "list") and any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"a key is a relative path without dots, such as data/x.parquet; not {key!r}")
        what = f"{verb} {self.display(key)}"

        def announce(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.warning(
                "Could not %s (%s); trying again in %.1f s", what, self._scrubbed(error), state.upcoming_sleep
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_before_delay(self._retry_seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=MAX_WAIT_SECONDS),
            retry=tenacity.retry_if_exception(_is_transient),
            before_sleep=announce,
            reraise=True,
        )
        # Each file system library has exceptions of its own, so this one edge catches all; none is swallowed.
        try:
            return retrying(lambda: action(self._backend()))
        except FileExistsError as exc:
            raise AlreadyExistsError(f"{self.display(key)} exists already") from exc
        except Exception as exc:
            if isinstance(exc, FileNotFoundError) and not _bucket_is_missing(exc):
                raise ObjectNotFoundError(f"There is no {self.display(key)}") from exc
            tried = f" (tried for up to {self._retry_seconds:.0f} s)" if _is_transient(exc) else ""
            raise StorageError(f"Could not {what}: {self._scrubbed(exc)}{tried}. {_remedy(exc)}") from exc

    def _scrubbed(self, exc: BaseException | None) -> str:
        text = f"{type(exc).__name__}: {exc}".rstrip(":. ")
        environment = [os.environ.get(name, "") for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
        for secret in [*_secrets(self._options), *environment]:
            text = text.replace(secret, "***") if len(secret) > 3 else text
        return text


class _Local:
    """A directory. fsspec's own "create" there looks, then opens: neither exclusive nor atomic."""

    def __init__(self, root: str, exclusive: bool) -> None:
        self._root = root
        self._exclusive = exclusive

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        target = os.path.join(self._root, key)
        with self._temporary(data) as temporary:
            _make_directory(os.path.dirname(target))
            if self._exclusive:
                self._link(temporary, target)
            elif os.path.lexists(target):
                raise FileExistsError(target)
            else:  # no hard links here (FUSE, exFAT): still atomic
                os.replace(temporary, target)
        _sync_directory(os.path.dirname(target))

    @staticmethod
    def _link(temporary: str, target: str) -> None:
        try:
            os.link(temporary, target)
        except FileExistsError:
            # NFS may repeat a request whose answer was lost, and then reports our own link.
            if not os.path.samefile(temporary, target):
                raise

    def replace(self, key: str, data: bytes) -> None:
        target = os.path.join(self._root, key)
        with self._temporary(data) as temporary:
            _make_directory(os.path.dirname(target))
            os.replace(temporary, target)
        _sync_directory(os.path.dirname(target))

    def read(self, key: str) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            return file.read()

    def read_tail(self, key: str, nbytes: int) -> bytes:
        with open(os.path.join(self._root, key), "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - nbytes))
            return file.read()

    def size(self, key: str) -> int | None:
        path = os.path.join(self._root, key)
        try:
            return os.path.getsize(path) if not os.path.isdir(path) else None
        except FileNotFoundError:
            return None

    def list(self, prefix: str) -> list[StoredObject]:
        found = []
        for path in self._files(os.path.join(self._root, prefix)):
            key = os.path.relpath(path, self._root).replace(os.sep, "/")
            if not key.startswith(_TEMPORARY + "/"):
                with suppress(FileNotFoundError):  # deleted since
                    found.append(StoredObject(key=key, size=os.path.getsize(path)))
        return found

    def delete(self, key: str) -> None:
        os.unlink(os.path.join(self._root, key))

    def remove_leftovers(self, age_seconds: float) -> int:
        removed, now = 0, datetime.now(UTC).timestamp()
        for path in self._files(os.path.join(self._root, _TEMPORARY)):
            with suppress(FileNotFoundError):  # another run cleans too
                if now - os.path.getmtime(path) > age_seconds:
                    os.unlink(path)
                    removed += 1
        return removed

    def _files(self, directory: str) -> Iterator[str]:
        def fail(error: OSError) -> None:  # os.walk is silent about what it can't read
            if not isinstance(error, FileNotFoundError):
                raise error

        for parent, _, names in os.walk(directory, onerror=fail):
            yield from (os.path.join(parent, name) for name in names)

    @contextmanager
    def _temporary(self, data: bytes) -> Iterator[str]:
        directory = os.path.join(self._root, _TEMPORARY)
        _make_directory(directory)
        path = os.path.join(directory, f"{os.getpid()}-{uuid.uuid4().hex}")
        try:
            with open(path, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


class _Remote:
    """Anything else fsspec opens. Whole bodies only: a file handle that fails publishes what it has."""

    def __init__(self, protocol: str, url: str, options: Mapping[str, object], exclusive: bool) -> None:
        settings: dict[str, Any] = dict(options)
        self._upload: dict[str, Any] = {}
        if protocol in ("s3", "s3a"):
            self._upload["chunksize"] = PART_BYTES
            settings["config_kwargs"] = {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 10,
                "read_timeout": 60,
                **(settings.get("config_kwargs") or {}),
            }
        # Its own instance, without a listing cache: shared ones show old listings to whoever comes later.
        self._fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **settings)
        self._root = str(root).rstrip("/")
        self._exclusive = exclusive
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1
        # The in-memory file system looks and then writes.
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if protocol == "memory" else nullcontext()

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        path = f"{self._root}/{key}"
        with self._lock:
            if (look_first or not self._exclusive) and self.size(key) is not None:
                return self._require_own(key, data)
            try:
                self._fs.pipe_file(
                    path, data, **self._upload, **({"mode": "create"} if self._exclusive else {})
                )
            except Exception as exc:
                # Not every S3 names the condition that failed, and then s3fs has no FileExistsError for it.
                if not isinstance(exc, FileExistsError) and _answer(exc)[0] != 412:
                    raise
                # Even at our first try: HTTP clients repeat a PUT by themselves when a kept connection drops.
                self._require_own(key, data)

    def _require_own(self, key: str, data: bytes) -> None:
        if self.size(key) != len(data) or self.read(key) != data:
            raise FileExistsError(key)

    def replace(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self._root}/{key}", data, **self._upload)

    def read(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(f"{self._root}/{key}"))

    def read_tail(self, key: str, nbytes: int) -> bytes:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{key}", start=-nbytes))
        except OSError as exc:
            if _answer(exc)[0] == 416:  # an empty object has no tail
                return b""
            raise

    def size(self, key: str) -> int | None:
        try:  # not fs.exists, which takes any failure for "no" in several file systems
            info = self._fs.info(f"{self._root}/{key}")
        except FileNotFoundError as exc:
            if _bucket_is_missing(exc):
                raise
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def list(self, prefix: str) -> list[StoredObject]:
        try:
            found = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError as exc:
            if _bucket_is_missing(exc):
                raise
            return []
        return [
            StoredObject(key=name[len(self._root) + 1 :], size=int(info["size"]))
            for name, info in found.items()
            if info["type"] == "file" and not name.endswith("/")  # a console's stand-in for a directory
        ]

    def delete(self, key: str) -> None:
        self._fs.rm_file(f"{self._root}/{key}")

    def remove_leftovers(self, age_seconds: float) -> int:
        if not hasattr(self._fs, "abort_mpu"):
            return 0
        bucket, prefix, _ = self._fs.split_path(self._root)
        # One page (1,000 uploads): the next run takes the rest.
        answer = self._fs.call_s3(
            "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else ""
        )
        old = [
            upload
            for upload in answer.get("Uploads", [])
            if (datetime.now(UTC) - upload["Initiated"]).total_seconds() > age_seconds
        ]
        for upload in old:
            with suppress(FileNotFoundError):  # another run cleans too
                self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        return len(old)


_Backend = _Local | _Remote


def _parse(url: str) -> tuple[str, str]:
    """Protocol and URL as the user should see it; a path without scheme becomes absolute. Refuses secrets."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        if url.partition(":")[0] in known_implementations:
            raise PreflightError(f"The output URL {url!r} lacks '//' after its scheme.")
        scheme, rest = "file", url
    if not rest.strip("/") and (scheme != "file" or not rest):
        raise PreflightError(f"The output URL {url!r} names no place: give a path, or a bucket after '://'.")
    if scheme in ("file", "local"):
        return "file", os.path.abspath(os.path.expanduser(rest))
    if ":" in rest.partition("/")[0].rpartition("@")[0]:
        raise PreflightError(
            f"The output URL ({scheme}://...) holds a password. Credentials belong in the environment, in an"
            " instance role or in output.storage_options."
        )
    if "?" in rest or "::" in url:
        raise PreflightError(f"The output URL ({scheme}://...) must be plain: without a query, not chained.")
    if scheme not in known_implementations and scheme not in registry:
        raise PreflightError(
            f"The output URL has an unknown scheme {scheme!r}. Use a local path, s3://, gs://, abfs://, or"
            " another scheme of fsspec."
        )
    known = known_implementations.get(scheme)
    if known and importlib.util.find_spec(str(known["class"]).partition(".")[0]) is None:
        raise PreflightError(f"Nothing is installed that opens {scheme}://. {known.get('err', '')}".strip())
    return scheme, url.rstrip("/")


def _make_directory(path: str) -> None:
    """Like os.makedirs, with the new names on disk, and a file in the way told from an object that exists."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make_directory(parent)
    try:
        os.mkdir(path)
    except FileExistsError as exc:
        if not os.path.isdir(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from exc
    _sync_directory(parent)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as exc:  # some network file systems write names through and can't sync a directory
        if exc.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


def _answer(exc: BaseException | None) -> tuple[int | None, str]:
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


def _is_transient(exc: BaseException) -> bool:
    """Whether the same request may succeed later. Refusals (credentials, names, full disks) may not."""
    status, code = _answer(exc)
    if code in _PASSING_CODES:
        return True
    if type(exc) in (FileExistsError, FileNotFoundError, PermissionError):  # everyday: spares the import
        return False
    if isinstance(exc, _passing_errors()):
        return True
    if status is not None:
        return status in (408, 409, 429) or (status >= 500 and status != 501)
    return isinstance(exc, OSError) and exc.errno in _PASSING_ERRNOS


def _bucket_is_missing(exc: BaseException) -> bool:
    return _answer(exc)[1] == "NoSuchBucket"


def _remedy(exc: Exception) -> str:
    status, _ = _answer(exc)
    number = exc.errno if isinstance(exc, OSError) and status is None else None
    if _bucket_is_missing(exc):
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
    if _is_transient(exc):
        return "Check the endpoint and the network; once the store answers, the same command resumes."
    return "Check output.path and output.storage_options."


def _secrets(value: object) -> Iterator[str]:
    """The texts in storage options that may be secret: all but those known to be public."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in _PUBLIC_OPTIONS:
                yield from _secrets(inner)
