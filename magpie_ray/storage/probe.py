"""Whether a place can be an output: everything that a job does there is done once, in a few requests.

Both places that a job writes to are tried, because data/ may lie on another mount or under another policy
than _magpie/. Invariants: what was created is deleted again; names say when they were made, so that a later
run can remove those of a probe that was killed.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING

from magpie_ray.errors import AlreadyExistsError, StorageError
from magpie_ray.storage.failures import is_transient
from magpie_ray.utils.background import DaemonExecutor

if TYPE_CHECKING:
    from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)

# Directory, and how names in it begin. Readers of data sets leave out names that begin with an underscore.
_PLACES = (("_magpie", "probe-"), ("data", "_probe-"))
_KEY = re.compile(r"(?:_magpie/probe|data/_probe)-(\d+)-\w+")
# A probe takes seconds: one from yesterday was left by a process that died, however wrong the clocks are.
_OLD_SECONDS = 86_400.0
# A creator waits for the other one no longer: on a machine so busy one comes after the other.
_START_SECONDS = 10.0


def creates_exclusively(storage: "Storage") -> bool:
    """Whether of two creations of one object at the same time one is refused, everywhere in the output.

    Raises the StorageError of the first operation that fails.
    """
    return False not in [_try_place(storage, directory, begin) for directory, begin in _PLACES]


def completes_exclusively(storage: "Storage", complete: Callable[[str], bool]) -> bool:
    """Whether `complete`, which ends an upload in parts of that key, is refused where an object exists."""
    key = new_key()
    try:
        storage.create(key, b"there already")
        exclusive = complete(key)
        storage.delete(key)
    except StorageError as exc:
        log.info("%s gets no uploads in parts: %s", storage.url, exc)
        return False
    return exclusive


def new_key(directory: str = _PLACES[0][0], begin: str = _PLACES[0][1]) -> str:
    """A name for a trial that nobody else has, with the time in it."""
    return f"{directory}/{begin}{time.time():.0f}-{uuid.uuid4().hex}"


def leftovers(storage: "Storage") -> Iterator[str]:
    """The keys of probes that were killed."""
    for directory, begin in _PLACES:
        for stored in storage.list_objects(directory, begin):
            match = _KEY.fullmatch(stored.key)
            if match and time.time() - int(match[1]) > _OLD_SECONDS:
                yield stored.key


def _try_place(storage: "Storage", directory: str, begin: str) -> bool:
    key = new_key(directory, begin)
    storage.list_objects(directory, begin)  # a refusal of everything shows here, before two ask at once
    try:
        exclusive = _race(storage, key) if storage.can_be_exclusive else False
        if not exclusive:
            storage.for_single_writer().replace(key, b"written by one")
        _read_back(storage, key)
    except StorageError:
        with suppress(StorageError):
            storage.delete(key)
        raise
    storage.delete(key)
    return exclusive


def _race(storage: "Storage", key: str) -> bool:
    """Whether one of two creators is refused. Their bytes differ, so that what is stored says who won.

    A creator that repeats its own request after a passing failure may be refused by its own object: then its
    bytes are stored, and nobody has overwritten them.
    """
    # Of different lengths: comparing them takes no reading.
    bids = [b"first", b"second"]
    start = Barrier(len(bids))

    def bid(data: bytes) -> StorageError | None:
        with suppress(BrokenBarrierError):
            start.wait(_START_SECONDS)
        try:
            storage.create(key, data)
        except StorageError as exc:
            return exc
        return None

    with DaemonExecutor(len(bids)) as pool:
        outcomes = list(pool.map(bid, bids))
    failures = [error for error in outcomes if error and not isinstance(error, AlreadyExistsError)]
    if failures:
        _find_out_whether_only_exclusion_fails(storage, key, failures[0])
        return False
    created = [data for data, error in zip(bids, outcomes, strict=True) if error is None]
    return len(created) < len(bids) and storage.read(key) in (created or bids)


def _find_out_whether_only_exclusion_fails(storage: "Storage", key: str, failure: StorageError) -> None:
    """Raises the failure unless the place can be written to without the condition."""
    if failure.__cause__ is None or is_transient(failure.__cause__):
        raise failure
    try:
        storage.for_single_writer().replace(key, b"written by one")
    except StorageError:
        raise failure from failure.__cause__


def _read_back(storage: "Storage", key: str) -> None:
    """Read as footers are read, and list as files are listed."""
    whole, tail = storage.read(key), storage.read_tail(key, 1)
    if tail != whole[-1:]:
        raise StorageError(
            f"{storage.display(key)} holds {whole!r}, but the store said that it ends with {tail!r}: it does "
            "not heed ranges. Choose another store, or another endpoint of it"
        )
    directory = key.partition("/")[0]
    if key not in [stored.key for stored in storage.list_objects(directory, key.partition("/")[2])]:
        log.warning("a listing of %s lags behind what is written there", storage.display(directory))
