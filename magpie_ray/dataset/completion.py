"""The end of a build: the whole manifest, and _SUCCESS when nobody works on more rows.

Several drivers may end at once, start meanwhile, or wake after a long suspension. Invariant: each looks again
after its own last write, so that the last look of all was at the final state. What a driver leaves wrong
that dies between its write and its look, the next run of the same command mends.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from magpie_ray.dataset import manifest
from magpie_ray.dataset.build_record import BuildRecord, restore_build
from magpie_ray.dataset.data_folder import read_data_folder
from magpie_ray.dataset.layout import SUCCESS_KEY
from magpie_ray.dataset.run_records import GONE_SECONDS, RunRecord, RunStatus, read_run_statuses
from magpie_ray.storage.storage import Storage
from magpie_ray.types import PartitionRecord

log = logging.getLogger(__name__)


def finish(
    storage: Storage,
    build: BuildRecord,
    records: Iterable[PartitionRecord],
    *,
    num_rows: int,
    run: RunRecord | None,
) -> list[PartitionRecord]:
    """Write the manifest and _SUCCESS: rows 0..num_rows-1 are committed. Returns all that is committed.

    run: the caller's; None where there was nothing to do. _SUCCESS is left to a run at work that wants more
    rows, and it waits while rows further up are committed and some in between are not. The caller may have
    been suspended at any point, so it looks again after each write, until nothing has changed meanwhile.
    """
    committed, before = {record.partition.key: record for record in records}, None
    while (others := _other_runs(storage, run)) != before:
        before = others  # read before the listing, which then shows all files of the runs that have ended
        restore_build(storage, build)
        for record in manifest.read_new(storage, build, committed, folder=read_data_folder(storage)):
            committed[record.partition.key] = record
        manifest.write_manifest(storage, build, committed.values(), num_rows=num_rows)
        at_work = [other for other in others if other.alive and other.num_rows > num_rows]
        end = max([num_rows, *(other.num_rows for other in at_work), *(r.stop for r in committed.values())])
        if not manifest.pending(end, build, committed.values()):
            manifest.mark_complete(storage)
            continue
        manifest.mark_growing(storage)
        for other in at_work:
            log.warning(
                "%s is not written: run %d on %r is at work on %d rows, and writes it at its end. If that "
                "run is dead, run this command again in %.0f minutes",
                SUCCESS_KEY,
                other.number,
                other.host,
                other.num_rows,
                GONE_SECONDS / 60,
            )
    return sorted(committed.values(), key=lambda record: record.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class _OtherRun:
    number: int
    host: str
    num_rows: int
    outcome: str
    alive: bool


def _other_runs(storage: Storage, run: RunRecord | None) -> list[_OtherRun]:
    """All runs but this one. The record of a dead driver says that it runs; its heartbeat tells."""
    return [
        _OtherRun(
            number=other.record.number,
            host=other.record.host,
            num_rows=other.record.num_rows,
            outcome=other.record.outcome,
            alive=other.alive,
        )
        for other in read_run_statuses(storage)
        if isinstance(other, RunStatus) and (run is None or other.record.token != run.token)
    ]
