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

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from magpie_ray.errors import AlreadyExistsError, ObjectNotFoundError, PreflightError, StorageError
from magpie_ray.storage import probe
from magpie_ray.storage.deadline import Deadline
from magpie_ray.storage.failures import Verdict, lacks_credentials
from magpie_ray.storage.refusals import log_retry, refusal_of
from magpie_ray.storage.remote import PART_BYTES
from magpie_ray.storage.retries import (
    DENIED_SECONDS,
    MAX_WAIT_SECONDS,
    RETRY_SECONDS,
    UNKNOWN_SECONDS,
    Access,
    Patience,
    call_with_retries,
    verdict_on,
)
from magpie_ray.storage.store import Store, open_store
from magpie_ray.storage.url import check_key, parse_url
from magpie_ray.types import StoredObject
from magpie_ray.utils.awake import awake_seconds

__all__ = ["RETRY_SECONDS", "ObjectNotFoundError", "Storage", "StoredObject"]

T = TypeVar("T")

# A user watches the start of a job: a wrong endpoint must show soon, a short outage must not stop the start.
PROBE_SECONDS = 20.0
# A user who reads a build at a terminal is watching, too.
READ_SECONDS = 30.0
# A client may hold credentials that were renewed since. A new one costs a part of a second of the processor.
_RENEW_SECONDS = 10.0
# The largest body of one PUT is 5 GB on S3, and parts begin at twice this size.
_WHOLE_BYTES = 2**31


class Storage:
    """One output location: a local path or any URL that fsspec knows. Picklable; threads may share it.

    Making one does no I/O and imports no client library.

    exclusive: whether of several creations of one object only one succeeds. With False, for stores whose
    `probe` returns False, `create` looks and then writes, which is safe for one writer only.
    retry_seconds: the bound on the retries of one call; denied_seconds and unknown_seconds: on those of one
    that is refused access although it had it, and of an upload that fails as nothing known does (see
    storage.retries). max_wait_seconds: the longest wait between two attempts. part_bytes: S3 gets an object
    of two such parts or more in parts.
    """

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, object] | None = None,
        *,
        exclusive: bool = True,
        retry_seconds: float = RETRY_SECONDS,
        denied_seconds: float = DENIED_SECONDS,
        unknown_seconds: float = UNKNOWN_SECONDS,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        part_bytes: int = PART_BYTES,
    ) -> None:
        self._protocol, self.url = parse_url(url)
        self._options = dict(storage_options or {})
        self.exclusive = exclusive
        self._patience = Patience(
            retry=retry_seconds, denied=denied_seconds, unknown=unknown_seconds, max_wait=max_wait_seconds
        )
        self._part_bytes = part_bytes
        self._opened: tuple[int, Store, float] | None = None  # process, store, when it was opened
        # Shared with the variants.
        self._access, self._deadline = Access(), Deadline()
        self.retries = 0  # attempts after the first, in this process

    def __repr__(self) -> str:
        return f"Storage({self.url!r})"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": None, "_deadline": Deadline(), "retries": 0}

    @property
    def retry_seconds(self) -> float:
        """The bound on the retries of one call."""
        return self._patience.retry

    @property
    def can_be_exclusive(self) -> bool:
        """Whether the client of this store sends the condition along with an upload."""
        return self._call("open", "", lambda store: store.can_be_exclusive)

    def retrying_for(self, seconds: float) -> "Storage":
        """The same place, for a caller with less (or more) patience."""
        return self._variant(_patience=replace(self._patience, retry=seconds))

    def give_up_after(self, seconds: float) -> None:
        """From now on every call in this process ends within so many seconds, if need be with a StorageError.

        That goes for calls under way, for later ones, and for those of `retrying_for` and
        `for_single_writer`. A process that is told to end sets it once, for all that it still writes.
        """
        self._deadline.bring_forward(seconds)

    def for_single_writer(self) -> "Storage":
        """The same place, for one writer at a time: `create` looks and then writes."""
        return self._variant(exclusive=False, _opened=None)

    def uploading_whole(self) -> "Storage":
        """The same place, for objects of up to 4 GB that are never uploaded in parts."""
        return self._variant(_part_bytes=_WHOLE_BYTES, _opened=None)

    def _variant(self, **changes: object) -> "Storage":
        # Not copy.copy, which leaves out the deadline, as a pickle does.
        variant = object.__new__(type(self))
        variant.__dict__ = {**self.__dict__, "retries": 0, **changes}
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

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        """The last `nbytes` of an object, or all of a smaller one.

        size: the object's, where the caller knows it; other stores than S3 are asked for it otherwise.
        """
        if nbytes <= 0:
            raise ValueError(f"nbytes must be positive, not {nbytes}")
        return self._call("read", key, lambda store: store.read_tail(key, nbytes, size))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """The bytes start..stop-1 of an object, which has them."""
        if not 0 <= start < stop:
            raise ValueError(f"a range needs 0 <= start < stop, not {start}..{stop}")
        return self._call("read", key, lambda store: store.read_range(key, start, stop))

    def exists(self, key: str) -> bool:
        """Whether there is an object (not a directory) under that key."""
        return self._call("look for", key, lambda store: store.size(key)) is not None

    def size(self, key: str) -> int:
        """The bytes of an object. Raises `ObjectNotFoundError` when there is none."""
        size = self._call("look for", key, lambda store: store.size(key))
        if size is None:
            raise ObjectNotFoundError(f"There is no {self.display(key)}")
        return size

    def list_objects(self, prefix: str, beginning: str = "") -> list[StoredObject]:
        """All objects below a directory (`""`: the whole output), by key; none if it does not exist.

        beginning: only those whose name in the directory begins so.
        """
        directory = prefix.strip("/")
        objects = self._call("list", directory, lambda store: store.list_objects(directory, beginning))
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
        for key in probe.leftovers(self):
            self.delete(key)
            removed += 1
        return removed

    def probe(self) -> bool:
        """Does what a job does, with small objects: True when one of two creations at once is refused.

        Raises `PreflightError`, with a remedy, when the location can't be used.
        """
        patience = replace(self._patience, retry=min(self.retry_seconds, PROBE_SECONDS))
        if "write" not in self._access.worked:
            patience = replace(patience, denied=0, unknown=0)
        quick = self._variant(exclusive=True, _opened=None, _patience=patience)
        try:
            if not quick._call("open", "", lambda store: store.writes_whole):
                raise PreflightError(
                    f"{self.url} can't be an output: {self._protocol}:// can neither create an object in one "
                    "step nor rename a file, so that a kill would leave half a file. Use a disk or an object "
                    "store; `magpie-ray push` brings a finished build to the Hugging Face hub"
                )
            return probe.creates_exclusively(quick)
        except StorageError as exc:
            raise PreflightError(f"The output {self.url} can't be used. {exc}") from exc

    def completes_exclusively(self) -> bool:
        """Whether an upload in parts is refused where the object exists, as `create` expects of it.

        Where it is not, `uploading_whole` does without parts. True for stores that get no parts.
        """
        quick = self._variant(_patience=replace(self._patience, retry=min(self.retry_seconds, PROBE_SECONDS)))
        return probe.completes_exclusively(
            quick, lambda key: quick._call("end parts of", key, lambda s: s.completes_exclusively(key))
        )

    def _open(self) -> Store:
        # One store per process: it holds a thread and sockets that a forked child can't use. Two threads here
        # at once each open a store, and the later one stays: harmless, unlike a lock held across a fork.
        opened = self._opened
        if opened is None or opened[0] != os.getpid():
            store = open_store(
                self._protocol, self.url, self._options, exclusive=self.exclusive, part_bytes=self._part_bytes
            )
            self._opened = opened = (os.getpid(), store, time.monotonic())
        return opened[1]

    def _call(self, verb: str, key: str, action: Callable[[Store], T]) -> T:
        """Runs one operation with retries. Whatever a library raises leaves as one of our errors."""
        if key or verb not in ("list", "open"):
            check_key(key)
        operation = f"{verb} {self.display(key)}"
        began, retries = awake_seconds(), self.retries

        def announce(error: BaseException, wait_seconds: float, patience_seconds: float) -> None:
            self.retries += 1
            if denied := verdict_on(verb, error) is Verdict.DENIED:
                self._renew_client(error)
            log_retry(error, operation, wait_seconds, patience_seconds, denied=denied, options=self._options)

        # Each file system library has its own exceptions, so this edge catches all. None is swallowed.
        try:
            return call_with_retries(
                lambda: action(self._open()),
                verb=verb,
                patience=self._patience,
                access=self._access,
                deadline=self._deadline,
                on_retry=announce,
            )
        except FileExistsError as exc:
            self._access.note(verb)
            raise AlreadyExistsError(f"{self.display(key)} exists already") from exc
        except Exception as exc:
            if isinstance(exc, FileNotFoundError) and verdict_on(verb, exc) is not Verdict.DENIED:
                self._access.note(verb)
                raise ObjectNotFoundError(f"There is no {self.display(key)}") from exc
            is_patient = self.retries > retries or self._patience.seconds(verb, exc, self._access) > 0
            tried = awake_seconds() - began if is_patient else None
            raise refusal_of(exc, operation, tried_seconds=tried, options=self._options) from exc

    def _renew_client(self, error: BaseException) -> None:
        """The next attempt reads the credentials again, which a client does once."""
        opened = self._opened
        if opened and (lacks_credentials(error) or time.monotonic() - opened[2] > _RENEW_SECONDS):
            self._opened = None
