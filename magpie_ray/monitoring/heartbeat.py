"""The heartbeat of a run: a small object that the run's driver rewrites every half minute.

Owns `_magpie/runs/NNNNNN.heartbeat.json`, which lies beside the run's record, and the warning about a second
run on a store without exclusive creation. Invariants:

- The heartbeat decides nothing and delays nothing. When it can't be written or others' can't be read, the
  run logs a warning and goes on.
- The age of a heartbeat is a difference of the store's own times, so no two machines' clocks are compared.
- A run is alive until its last record is written: from the end of its job's loop on, which may be minutes
  before that, the last snapshot is written again and again.
- Two runs at once on a store without exclusive creation are both warned, each before its own next beat, even
  if both hold the same run number; a run that starts beside a living one is warned at its first beat.
"""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import Self

from magpie_ray.coordinator.watcher import Snapshot, Watcher
from magpie_ray.dataset.layout import RUNS_PREFIX, heartbeat_key, now, to_json
from magpie_ray.dataset.run_records import BEAT_SECONDS, GONE_SECONDS, RunRecord, read_heartbeat, read_run
from magpie_ray.errors import CorruptBuildError, StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.utils.background import DaemonExecutor

log = logging.getLogger(__name__)
_RETRY_SECONDS = 20.0
_RUN_FILE = re.compile(re.escape(RUNS_PREFIX) + r"(\d{6})\..*")


class Heartbeat(Watcher):
    """A watcher of a job, and a context. The first snapshot is written at once.

    clock: seconds, monotonic. executor: runs the requests to storage, one after the other. every_seconds:
    between two beats.
    """

    def __init__(
        self,
        storage: Storage,
        run: RunRecord,
        *,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
        every_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._storage = storage.retrying_for(_RETRY_SECONDS)
        self._run = run
        self._others = None if storage.exclusive else OtherRuns(self._storage, run)
        self._clock = clock
        self._executor = executor or DaemonExecutor(name="heartbeat")
        self._beat: Future[None] | None = None
        self._every_seconds, self._next = every_seconds, clock()
        self._warned = False
        self._last: Snapshot | None = None
        self._over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._executor.shutdown(wait=False)

    def show(self, snapshot: Snapshot) -> None:
        if self._beat and self._beat.done():
            self._beat.result()  # raises any unexpected error
            self._beat = None
        if self._beat is None and self._clock() >= self._next:
            self._next = self._clock() + self._every_seconds
            self._beat = self._executor.submit(self._write, snapshot.fields())
        self._last = snapshot

    def note_last(self) -> None:
        threading.Thread(target=self._repeat, name="last-heartbeats", daemon=True).start()

    def _repeat(self) -> None:
        """Has the last snapshot written again and again, until the context is left."""
        while self._last and not self._over.wait(self._every_seconds):
            if self._beat is None or self._beat.done():
                with suppress(RuntimeError):  # shut down meanwhile
                    self._beat = self._executor.submit(self._write, self._last.fields())

    def _write(self, fields: Mapping[str, object]) -> None:
        if self._others and (warning := self._others.look()):
            log.warning("%s", warning)
        beat = {**fields, "token": self._run.token, "written": now()}
        try:
            self._storage.replace(heartbeat_key(self._run.number), to_json(beat))
        except StorageError as exc:
            if not self._warned:
                log.warning("can't write the heartbeat, so `status` may take this run for dead: %s", exc)
            self._warned = True


class OtherRuns:
    """The other runs at work on one output, for a store that can't keep two runs apart.

    The first look takes a run for alive when its files are younger than GONE_SECONDS; where the store's times
    are wrong, that is one warning more, or one less. Later looks take a run for alive when one of its files
    has changed since the look before, whatever the times say.
    """

    def __init__(self, storage: Storage, run: RunRecord) -> None:
        self._storage = storage
        self._run = run
        self._versions: dict[str, object] | None = None

    def look(self) -> str | None:
        """A warning about other runs at work, or about a failure to find them; None if there is none."""
        try:
            others = [name for number in self._active() if (name := self._name(number))]
        except (StorageError, CorruptBuildError) as exc:
            return f"can't find out whether another run is at work: {exc}"
        if not others:
            return None
        return (
            f"{' and '.join(others)} also writes to {self._storage.url}. If it is still at work, end one of "
            "the two: this store can't keep two runs apart, and output.single_writer: true promises that "
            "there is only one"
        )

    def _active(self) -> list[int]:
        """Numbers of the runs whose files are recent, at the first look, or have changed since the last."""
        listed = self._storage.list_objects(RUNS_PREFIX)
        before = self._versions
        # If the store does not report when an object was written, its content is compared.
        self._versions = {
            item.key: self._storage.read(item.key) if item.modified is None else item.modified
            for item in listed
        }
        if before is None:
            oldest = self._storage.now() - GONE_SECONDS
            changed = [item.key for item in listed if item.modified is None or item.modified > oldest]
        else:
            changed = [key for key, version in self._versions.items() if before.get(key) != version]
        return sorted({int(match[1]) for key in changed if (match := _RUN_FILE.fullmatch(key))})

    def _name(self, number: int) -> str | None:
        """A run as the warning names it; None when it is this one, or has ended."""
        if number == self._run.number:
            beat = read_heartbeat(self._storage, number)
            if beat is None or beat.get("token") == self._run.token:
                return None
        record = read_run(self._storage, number)
        if record.outcome != "running":
            return None
        if record.token == self._run.token:  # ours is written over theirs
            return f"another driver of run {number}"
        return f"run {number} on {record.host!r}"
