"""The committed partitions of a build, as the job's loop knows them."""

from collections.abc import Iterable
from dataclasses import replace
from sys import intern

from magpie_ray.counters import Tally
from magpie_ray.types import PartitionRecord


class Ledger:
    """Records by key. rows: of all records; rows_before: of those that were committed before this run.

    written: the attempts behind the files that run number `run` has written.
    """

    def __init__(self, records: Iterable[PartitionRecord], *, run: int = 0) -> None:
        self.records = {record.partition.key: record for record in records}
        self.rows_before = self.rows = sum(record.rows for record in self.records.values())
        self.written = Tally()
        self._run = run
        self._strays = set[str]()

    def note(self, record: PartitionRecord) -> bool:
        """Add the record of a committed file. False when it is known; then only its hash may be new."""
        key = record.partition.key
        if known := self.records.get(key):
            if known.sha256 is None and known == record:
                self.records[key] = _with_shared_texts(record)
            return False
        self.records[key] = _with_shared_texts(record)
        self.rows += record.rows
        if record.run == self._run:
            self.written = Tally.sum([self.written, record])
        return True

    def new_strays(self, keys: Iterable[str]) -> list[str]:
        """Those of the strays that are in data/ now that were not there the last time."""
        before, self._strays = self._strays, set(keys)
        return sorted(self._strays - before)


def _with_shared_texts(record: PartitionRecord) -> PartitionRecord:
    """The record without copies of its own of the texts that all records have.

    Each event brings its own copies: 170 bytes a record, of which a week makes half a million.
    """
    rejected = {intern(reason): number for reason, number in record.rejected.items()}
    return replace(record, fingerprint=intern(record.fingerprint), rejected=rejected)
