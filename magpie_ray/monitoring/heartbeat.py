"""The heartbeat of a run: a small object that its driver writes again every half minute.

Owns `_magpie/runs/NNNNNN.heartbeat.json`, beside the run's record. What always holds: it decides nothing and
holds nothing up: one that can't be written is told once and costs the run nothing. How old it is, the store
itself tells by when the object was written, so no two machines' clocks are compared.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from magpie_ray.coordinator.snapshot import Snapshot
from magpie_ray.dataset.layout import now, to_json
from magpie_ray.dataset.run_records import BEAT_SECONDS, heartbeat_key
from magpie_ray.errors import StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.events import Committed

log = logging.getLogger(__name__)
_RETRY_SECONDS = 20.0


class Heartbeat:
    """A watcher of a job, and a context: the first snapshot is written at once."""

    def __init__(self, storage: Storage, run: int) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._key = heartbeat_key(run)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="heartbeat")
        self._beat: Future[None] | None = None
        self._next = 0.0
        self._warned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=False)

    def show(self, snapshot: Snapshot) -> None:
        if self._beat and self._beat.done():
            self._check(self._beat)
            self._beat = None
        if self._beat is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + BEAT_SECONDS
            self._beat = self._thread.submit(self._write, dict(snapshot.fields()))

    def committed(self, slot: int, event: Committed) -> None:
        """The files say so themselves."""

    def _write(self, fields: Mapping[str, object]) -> None:
        self._storage.replace(self._key, to_json({**fields, "written": now()}))

    def _check(self, beat: Future[None]) -> None:
        error = beat.exception()
        if isinstance(error, StorageError) and not self._warned:
            self._warned = True
            log.warning("the heartbeat can't be written, so `status` may take this run for dead: %s", error)
        elif error and not isinstance(error, StorageError):
            raise error
