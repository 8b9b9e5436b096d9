"""Whole objects under one output URL, created exclusively and atomically.

Owns: every byte that goes to or comes from the output location, the retries of that traffic, and the
translation of what disk and network libraries raise. What always holds:

- An object is seen whole or not at all. On a local disk its bytes are synced under `_magpie/tmp/` before
  they get their name; object stores get one conditional PUT, or parts whose completion is conditional.
- Of several creations of one key with different bytes exactly one returns; the others raise
  `AlreadyExistsError`. Equal bytes may both return: a repeated request can't be told from a twin, so who must
  know that it won (a numbered run) writes something nobody else writes.
- Failures that pass are retried in one place, here, for a bounded time. The retries inside s3fs and botocore
  are off: they would multiply the bound.
- No credential is in a message, a repr or `url`.

The parts: storage_url (what a URL means), storage_local and storage_remote (the two kinds of store),
storage_errors (what their failures mean).
"""

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TypeAlias, TypeVar

import tenacity

from magpie_ray.errors import AlreadyExistsError, ObjectNotFoundError, PreflightError, StorageError
from magpie_ray.storage.failures import bucket_is_missing, is_transient, remedy, scrubbed
from magpie_ray.storage.local import LocalStore
from magpie_ray.storage.remote import RemoteStore
from magpie_ray.storage.url import parse_url
from magpie_ray.types import StoredObject

__all__ = ["ObjectNotFoundError", "Storage", "StoredObject"]

log = logging.getLogger(__name__)
T = TypeVar("T")

# Throttling may last minutes, and a finished partition is about five minutes of one actor: waiting this long
# for the store is cheaper than generating again. Longer would look like a hang.
RETRY_SECONDS = 600.0
# Whoever starts a job is watching: a wrong endpoint should show soon, a hiccup should not stop the start.
PROBE_SECONDS = 20.0
# Who reads a build at a terminal is watching, too.
READ_SECONDS = 30.0
# With hundreds of writers at once, waits must spread (full jitter) and not grow past what throttling needs.
MAX_WAIT_SECONDS = 20.0
# A probe takes seconds: one of yesterday was left by a process that died, whatever the clocks say.
_OLD_PROBE_SECONDS = 86_400.0

_PROBE_KEY = re.compile(r"_magpie/probe-(\d+)-\w+")

_Store: TypeAlias = LocalStore | RemoteStore


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
        self._protocol, self.url = parse_url(url)
        self._options = dict(storage_options or {})
        self._exclusive = exclusive
        self._retry_seconds = retry_seconds
        self._opened: tuple[int, _Store] | None = None
        self.retries = 0  # requests that were made again, in this process

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None, "retries": 0}

    def retrying_for(self, seconds: float) -> "Storage":
        """The same place, for someone with less (or more) patience."""
        return Storage(self.url, self._options, exclusive=self._exclusive, retry_seconds=seconds)

    def for_single_writer(self) -> "Storage":
        """The same place, for one writer at a time: `create` looks and then writes."""
        return Storage(self.url, self._options, exclusive=False, retry_seconds=self._retry_seconds)

    @property
    def exclusive(self) -> bool:
        """Whether of several creations of one object only one succeeds."""
        return self._exclusive

    def display(self, key: str) -> str:
        """The full URL of a key, for messages."""
        return f"{self.url}/{key}".rstrip("/")

    def create(self, key: str, data: bytes) -> None:
        """Creates an object that must not exist. Raises `AlreadyExistsError` when somebody else was first."""
        tries = 0

        def attempt(store: _Store) -> None:
            nonlocal tries
            tries += 1
            # After a failure the object may be ours already: looking is cheaper than a second upload.
            store.create(key, data, look_first=tries > 1)

        self._call("create", key, attempt)

    def replace(self, key: str, data: bytes) -> None:
        """Writes an object in one step, over an earlier one if there is one."""
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
        """All objects below a directory (`""`: the whole output), by key; none when it does not exist."""
        directory = prefix.strip("/")
        found = self._call("list", directory, lambda store: store.list_objects(directory))
        return sorted(found, key=lambda stored: stored.key)

    def now(self) -> float:
        """The store's own time, in seconds since 1970 (UTC), which `StoredObject.modified` is told in.

        This machine's, where the store does not tell: on anything but S3.
        """
        return self._call("list", "", lambda store: store.now())

    def delete(self, key: str) -> None:
        """Removes an object. None there is fine."""
        with suppress(ObjectNotFoundError):
            self._call("delete", key, lambda store: store.delete(key))

    def remove_leftovers(self) -> int:
        """Removes what writers that died left outside what readers see; returns how many there were.

        Nothing that a live writer needs: what can't be told from that stays until it is old.
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

        Raises `PreflightError`, with what to do about it, when the location can't be used.
        """
        key = f"_magpie/probe-{time.time():.0f}-{uuid.uuid4().hex}"
        seconds = min(self._retry_seconds, PROBE_SECONDS)
        quick = Storage(self.url, self._options, retry_seconds=seconds)
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

    def _open(self) -> _Store:
        # A file system holds a thread and sockets that a forked child can't use, hence one a process. Two
        # threads here at once each open one and the later stays: harmless, unlike a lock held across a fork.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            if self._protocol == "file":
                opened = (os.getpid(), LocalStore(self.url, self._exclusive))
            else:
                opened = (os.getpid(), RemoteStore(self._protocol, self.url, self._options, self._exclusive))
            self._opened = opened
        return opened[1]

    def _call(self, verb: str, key: str, action: Callable[[_Store], T]) -> T:
        """Runs one operation with retries; whatever a library raises leaves as one of our errors."""
        if (key or verb != "list") and any(part in ("", ".", "..") for part in key.split("/")):
            raise ValueError(f"a key is a relative path without dots, such as data/x.parquet; not {key!r}")
        what = f"{verb} {self.display(key)}"

        def announce(state: tenacity.RetryCallState) -> None:
            self.retries += 1
            error = state.outcome.exception() if state.outcome else None
            log.warning(
                "Could not %s (%s); trying again in %.1f s",
                what,
                scrubbed(error, self._options),
                state.upcoming_sleep,
            )

        retrying = tenacity.Retrying(
            stop=tenacity.stop_before_delay(self._retry_seconds),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=MAX_WAIT_SECONDS),
            retry=tenacity.retry_if_exception(is_transient),
            before_sleep=announce,
            reraise=True,
        )
        # Each file system library has exceptions of its own, so this one edge catches all; none is swallowed.
        try:
            return retrying(lambda: action(self._open()))
        except FileExistsError as exc:
            raise AlreadyExistsError(f"{self.display(key)} exists already") from exc
        except Exception as exc:
            missing = isinstance(exc, FileNotFoundError) and not bucket_is_missing(exc)
            if missing and verb not in ("create", "write"):
                raise ObjectNotFoundError(f"There is no {self.display(key)}") from exc
            tried = f" (tried for up to {self._retry_seconds:.0f} s)" if is_transient(exc) else ""
            raise StorageError(
                f"Could not {what}: {scrubbed(exc, self._options)}{tried}. {remedy(exc)}"
            ) from exc
