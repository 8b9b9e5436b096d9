"""Storage: whole objects under one output URL, created exclusively and atomically.

Owns: every byte that goes to or comes from the output, the retries of that traffic, and the translation of
what disk and network libraries raise. Invariants:

- An object is visible whole or not at all. On a local disk its bytes are synced under `_magpie/tmp/` before
  they get their name. Object stores get one conditional PUT, or parts whose completion is conditional.
- Of several creations of one key with different bytes exactly one returns; the others raise
  `AlreadyExistsError`. Creations with equal bytes may all return, because a repeated request looks the same
  as another writer's. A writer that must know whether it was first, such as a run that takes a number, writes
  bytes that nobody else writes.
- Transient failures are retried here only, for a bounded time. The retries inside s3fs and botocore are off,
  because they would multiply that bound.
- No message, no repr and no `url` holds a credential.
"""

import copy
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol, TypeVar

import tenacity

from magpie_ray.errors import AlreadyExistsError, ObjectNotFoundError, PreflightError, StorageError
from magpie_ray.storage.failures import bucket_is_missing, is_transient, remedy, scrubbed
from magpie_ray.storage.local import LocalStore
from magpie_ray.storage.remote import PART_BYTES, RemoteStore
from magpie_ray.storage.url import parse_url
from magpie_ray.types import StoredObject

__all__ = ["ObjectNotFoundError", "Storage", "StoredObject"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# Throttling may last minutes, and a finished partition is about five minutes of one actor: waiting this long
# for the store is cheaper than generating again. A longer wait would look like a hang.
RETRY_SECONDS = 600.0
# A user watches the start of a job: a wrong endpoint must show soon, a short outage must not stop the start.
PROBE_SECONDS = 20.0
# A user who reads a build at a terminal is watching, too.
READ_SECONDS = 30.0
# With hundreds of writers at once, waits must spread (full jitter), but not beyond what throttling needs.
MAX_WAIT_SECONDS = 20.0
# A probe takes seconds: one from yesterday was left by a process that died, however wrong the clocks are.
_OLD_PROBE_SECONDS = 86_400.0

_PROBE_KEY = re.compile(r"_magpie/probe-(\d+)-\w+")


class Store(Protocol):
    """One kind of place, behind Storage: LocalStore or RemoteStore.

    Keys are relative paths. Methods make one attempt and raise whatever their libraries raise.
    """

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        """FileExistsError when the object exists. look_first: it may be ours, from an earlier attempt."""

    def replace(self, key: str, data: bytes) -> None: ...

    def read(self, key: str) -> bytes: ...

    def read_tail(self, key: str, nbytes: int) -> bytes: ...

    def size(self, key: str) -> int | None:
        """Bytes; None when there is no object under that key."""

    def list_objects(self, prefix: str) -> list[StoredObject]: ...

    def now(self) -> float: ...

    def delete(self, key: str) -> None: ...

    def remove_leftovers(self) -> int: ...


class Storage:
    """One output location: a local path or any URL that fsspec knows. Picklable; threads may share it.

    Making one does no I/O and imports no client library.

    exclusive: whether of several creations of one object only one succeeds. With False, for stores whose
    `probe` returns False, `create` looks and then writes, which is safe for one writer only.
    retry_seconds: the bound on the retries of one call. max_wait_seconds: the longest wait between two
    attempts. part_bytes: S3 gets an object of two such parts or more in parts.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, object] | None = None,
        *,
        exclusive: bool = True,
        retry_seconds: float = RETRY_SECONDS,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._protocol, self.url = parse_url(url)
        self._options = dict(storage_options or {})
        self.exclusive = exclusive
        self.retry_seconds = retry_seconds
        self._max_wait_seconds = max_wait_seconds
        self._part_bytes = part_bytes
        self._opened: tuple[int, Store] | None = None
        self.retries = 0  # attempts after the first, in this process

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None, "retries": 0}

    def retrying_for(self, seconds: float) -> "Storage":
        """The same place, for a caller with less (or more) patience."""
        return self._variant(exclusive=self.exclusive, retry_seconds=seconds)

    def for_single_writer(self) -> "Storage":
        """The same place, for one writer at a time: `create` looks and then writes."""
        return self._variant(exclusive=False, retry_seconds=self.retry_seconds)

    def _variant(self, *, exclusive: bool, retry_seconds: float) -> "Storage":
        variant = copy.copy(self)
        variant.exclusive, variant.retry_seconds = exclusive, retry_seconds
        return variant

    def display(self, key: str) -> str:
        """The full URL of a key, for messages."""
        return f"{self.url}/{key}".rstrip("/")

    def create(self, key: str, data: bytes) -> None:
        """Creates an object that must not exist. Raises `AlreadyExistsError` when it does."""
        attempts = 0

        def attempt(store: Store) -> None:
            nonlocal attempts
            attempts += 1
            # A failed attempt may have created the object: looking is cheaper than a second upload.
            store.create(key, data, look_first=attempts > 1)

        self._call("create", key, attempt)

    def replace(self, key: str, data: bytes) -> None:
        """Writes an object in one step, over an existing one if there is one."""
        self._call("write", key, lambda store: store.replace(key, data))

    def read(self, key: str) -> bytes:
        """All bytes of an object. Raises `ObjectNotFoundError` when there is none."""
        return self._call("read", key, lambda store: store.read(key))

    def read_tail(self, key: str, nbytes: int) -> bytes:
        """The last `nbytes` of an object, or all of a smaller one, in one request."""
        if nbytes <= 0:
            raise ValueError(f"nbytes must be positive, not {nbytes}")
        return self._call("read", key, lambda store: store.read_tail(key, nbytes))

    def exists(self, key: str) -> bool:
        """Whether there is an object (not a directory) under that key."""
        return self._call("look for", key, lambda store: store.size(key)) is not None

    def size(self, key: str) -> int:
        """The bytes of an object. Raises `ObjectNotFoundError` when there is none."""
        size = self._call("look for", key, lambda store: store.size(key))
        if size is None:
            raise ObjectNotFoundError(f"There is no {self.display(key)}")
        return size

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """All objects below a directory (`""`: the whole output), by key; none if it does not exist."""
        directory = prefix.strip("/")
        objects = self._call("list", directory, lambda store: store.list_objects(directory))
        return sorted(objects, key=lambda stored: stored.key)

    def now(self) -> float:
        """The store's own time, in seconds since 1970 (UTC), comparable with `StoredObject.modified`.

        Only S3 reports its time. For other stores this is the time of this machine.
        """
        return self._call("list", "", lambda store: store.now())

    def delete(self, key: str) -> None:
        """Removes an object, if there is one."""
        with suppress(ObjectNotFoundError):
            self._call("delete", key, lambda store: store.delete(key))

    def remove_leftovers(self) -> int:
        """Removes what dead writers left where readers don't look; returns how many objects there were.

        A live writer loses nothing: what may be a live writer's stays until it is old.
        """
        removed = self._call("clean", "_magpie", lambda store: store.remove_leftovers())
        for stored in self.list_objects("_magpie"):
            probe = _PROBE_KEY.fullmatch(stored.key)
            if probe and time.time() - int(probe[1]) > _OLD_PROBE_SECONDS:
                self.delete(stored.key)
                removed += 1
        return removed

    def probe(self) -> bool:
        """Writes, reads and deletes a small object: True when a second creation of it is refused.

        Raises `PreflightError`, with a remedy, when the location can't be used.
        """
        key = f"_magpie/probe-{time.time():.0f}-{uuid.uuid4().hex}"
        quick = self._variant(exclusive=True, retry_seconds=min(self.retry_seconds, PROBE_SECONDS))
        try:
            exclusive = quick._creates_exclusively(key)
            quick.read(key)
            quick.list_objects("_magpie")
            quick.delete(key)
        except StorageError as exc:
            raise PreflightError(f"The output {self.url} can't be used. {exc}") from exc
        return exclusive

    def _creates_exclusively(self, key: str) -> bool:
        try:
            self.create(key, b"first")
        except StorageError as exc:
            if exc.__cause__ is None or is_transient(exc.__cause__):
                raise
            try:  # perhaps this store refuses only the condition
                self.replace(key, b"first")
            except StorageError:
                raise exc from exc.__cause__
            return False
        try:
            self.create(key, b"second")
        except AlreadyExistsError:
            return True
        return False

    def _open(self) -> Store:
        # One store per process: it holds a thread and sockets that a forked child can't use. Two threads here
        # at once each open a store, and the later one stays: harmless, unlike a lock held across a fork.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            store: Store
            if self._protocol == "file":
                store = LocalStore(self.url, self.exclusive)
            else:
                store = RemoteStore(
                    self._protocol, self.url, self._options, self.exclusive, part_bytes=self._part_bytes
                )
            self._opened = opened = (os.getpid(), store)
        return opened[1]

    def _call(self, verb: str, key: str, action: Callable[[Store], T]) -> T:
        """Runs one operation with retries. Whatever a library raises leaves as one of our errors."""
        if (key or verb != "list") and any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"a key is a relative path without dots, such as data/x.parquet; not {key!r}")
        operation = f"{verb} {self.display(key)}"

        def announce(state: tenacity.RetryCallState) -> None:
            self.retries += 1
            error = state.outcome.exception() if state.outcome else None
            log.warning(
                "Could not %s (%s); trying again in %.1f s",
                operation,
                scrubbed(error, self._options),
                state.upcoming_sleep,
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_before_delay(self.retry_seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=self._max_wait_seconds),
            retry=tenacity.retry_if_exception(is_transient),
            before_sleep=announce,
            reraise=True,
        )
        # Each file system library has its own exceptions, so this edge catches all. None is swallowed.
        try:
            return retrying(lambda: action(self._open()))
        except FileExistsError as exc:
            raise AlreadyExistsError(f"{self.display(key)} exists already") from exc
        except Exception as exc:
            missing = isinstance(exc, FileNotFoundError) and not bucket_is_missing(exc)
            if missing and verb not in ("create", "write"):
                raise ObjectNotFoundError(f"There is no {self.display(key)}") from exc
            tried = f" (tried for up to {self.retry_seconds:.0f} s)" if is_transient(exc) else ""
            raise StorageError(
                f"Could not {operation}: {scrubbed(exc, self._options)}{tried}. {remedy(exc)}"
            ) from exc
