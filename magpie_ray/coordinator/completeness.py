"""Whether a job that has heard of all its rows finds them all in the output.

A listing may lag behind, and a file that was reported may have been removed. Invariant: rows count as
committed when their file is listed, or is found by its key with the size that its writer reported.
"""

import logging
import time
from collections.abc import Callable, Iterable

from magpie_ray.coordinator.ledger import Ledger
from magpie_ray.dataset import manifest
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.data_folder import read_data_folder, stray_warning
from magpie_ray.errors import GenerationFailedError, InterruptedJobError, ObjectNotFoundError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord
from magpie_ray.utils.background import DaemonExecutor

log = logging.getLogger(__name__)

# Two minutes in all: a listing that lags longer than that has never been seen.
LOOK_AGAIN_SECONDS = (1, 2, 4, 8, 15, 30, 30, 30)
_READERS = 32


def read_all_committed(
    storage: Storage,
    build: BuildRecord,
    ledger: Ledger,
    *,
    num_rows: int,
    stop_requested: Callable[[], bool],
    look_again_seconds: Iterable[int] = LOOK_AGAIN_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> list[PartitionRecord]:
    """The committed partitions, which hold rows 0..num_rows-1. Looks again for a while for those that lack.

    GenerationFailedError when some are still not there; InterruptedJobError when the job is stopped.
    """
    for seconds in (*look_again_seconds, None):
        records, problem = list[PartitionRecord](), ""
        try:
            records = _read(storage, build, ledger)
        except ObjectNotFoundError as exc:  # listed, but not to be read: removed since, or not there yet
            problem = str(exc)
        if not problem:
            left = manifest.pending(num_rows, build, records)
            if not left:
                return records
            problem = f"{storage.url} lacks {', '.join(map(str, left[:3]))}"
        if seconds is None:
            break
        log.warning("%s, though all partitions were reported as committed: looking again", problem)
        for _ in range(seconds):  # a job that is told to stop has half a minute at most
            sleep(1.0)
            if stop_requested():
                raise InterruptedJobError(f"stopped while {problem}; run the same command again")
    raise GenerationFailedError(
        f"{problem}, though all partitions were reported as committed: were files removed? Run the same "
        "command again to generate these rows"
    )


def _read(storage: Storage, build: BuildRecord, ledger: Ledger) -> list[PartitionRecord]:
    """What is listed, and what is reported and found by its key."""
    folder = read_data_folder(storage)
    if strays := ledger.new_strays(folder.strays):
        log.warning("%s", stray_warning(storage, strays))
    records = manifest.read_committed(storage, build, folder=folder, known=ledger.records)
    listed = {record.partition.key for record in records}
    unlisted = [record for key, record in ledger.records.items() if key not in listed]
    records += found_by_key(storage, unlisted)
    return sorted(records, key=lambda record: record.start)


def found_by_key(storage: Storage, records: Iterable[PartitionRecord]) -> list[PartitionRecord]:
    """Those of the partitions whose file is there, whatever a listing says."""

    def is_there(record: PartitionRecord) -> bool:
        try:
            return storage.size(record.partition.key) == record.size
        except ObjectNotFoundError:
            return False

    records = list(records)
    with DaemonExecutor(_READERS) as pool:
        return [record for record, found in zip(records, pool.map(is_there, records), strict=True) if found]
