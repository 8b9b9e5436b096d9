"""The committed partitions of a build, as the job's loop knows them."""

from collections.abc import Iterable

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

    def note(self, record: PartitionRecord) -> bool:
        """Add the record of a committed file. False when it is known."""
        key = record.partition.key
        if key in self.records:
            return False
        self.records[key] = record
        self.rows += record.rows
        if record.run == self._run:
            self.written = Tally.sum([self.written, record])
        return True
