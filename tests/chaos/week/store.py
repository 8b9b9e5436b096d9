"""A store that keeps the records of partitions by key, and everything else as bytes.

Creation is exclusive. A footer is made when it is read. Requests take virtual time, which `spent` adds up
for the thread that makes them.
"""

import json
import re
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from magpie_ray.dataset.parquet import FOOTER_KEY
from magpie_ray.errors import AlreadyExistsError, ObjectNotFoundError, PreflightError, StorageError
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord, StoredObject
from tests.chaos.week.agenda import Agenda
from tests.chaos.week.worker import tally_of

BYTES_PER_ROW = 1500
# As of S3. Footers are read by so many at once.
_KEYS_PER_PAGE, _READERS = 1000, 32
_BYTES_PER_SECOND = 50e6
# Of memory, for two numbers in a dict.
_BYTES_PER_FILE = 120
_FILE = re.compile(re.escape(DATA_PREFIX) + r"part-(\d{12})\.parquet")


class Objects:
    """What is stored, whoever asks. files: by first row, packed, because a driver's memory is measured."""

    def __init__(self, agenda: Agenda, *, fingerprint: str) -> None:
        self._agenda, self._fingerprint = agenda, fingerprint
        self._files: dict[int, int] = {}
        self.others: dict[str, bytes] = {}
        self.out_until = 0.0

    @property
    def is_out(self) -> bool:
        return self._agenda.now < self.out_until

    def __len__(self) -> int:
        """The number of files."""
        return len(self._files)

    @property
    def megabytes(self) -> float:
        """That the process holds for it."""
        return (sum(map(len, self.others.values())) + _BYTES_PER_FILE * len(self._files)) / 1e6

    def create(self, rows: Partition, *, run: int, attempts: int) -> tuple[PartitionRecord, bool]:
        """The file that begins with these rows, and whether it is new: then its writer knows its hash."""
        is_new = rows.start not in self._files
        if is_new:
            self._files[rows.start] = rows.num_rows << 48 | run << 32 | attempts
        record = self.record(rows.start)
        return (replace(record, sha256=f"{rows.start:064x}") if is_new else record), is_new

    def record(self, start: int) -> PartitionRecord:
        """What the footer of the file says."""
        packed = self._files[start]
        rows, run, attempts = packed >> 48, packed >> 32 & 0xFFFF, packed & 0xFFFFFFFF
        tally = tally_of(rows, attempts)
        return PartitionRecord(
            start=start,
            stop=start + rows,
            fingerprint=self._fingerprint,
            run=run,
            size=BYTES_PER_ROW * rows,
            rejected=tally.rejected,
            user_tokens=tally.user_tokens,
            assistant_tokens=tally.assistant_tokens,
        )

    def partitions(self) -> list[Partition]:
        """The rows of each file, in order."""
        return [
            Partition(start=start, stop=start + (self._files[start] >> 48)) for start in sorted(self._files)
        ]

    def find(self, key: str) -> PartitionRecord | None:
        """The record of the file with that key."""
        match = _FILE.fullmatch(key)
        return self.record(int(match[1])) if match and int(match[1]) in self._files else None


class VirtualStorage(Storage):
    """One process's way to the store. gone: the process is dead, and nothing of it arrives any more."""

    def __init__(self, objects: Objects, *, request_seconds: float) -> None:
        super().__init__("memory://week")
        self._objects, self._request_seconds = objects, request_seconds
        self.gone = False
        self.spent = 0.0

    def retrying_for(self, seconds: float) -> Self:
        return self

    def _check(self) -> None:
        if self.gone or self._objects.is_out:
            raise StorageError("the store does not answer") from ConnectionResetError()

    def _reach(self, more_seconds: float = 0.0) -> Objects:
        self.spent += self._request_seconds + more_seconds
        self._check()
        return self._objects

    def create(self, key: str, data: bytes) -> None:
        others = self._reach().others
        if key in others:
            raise AlreadyExistsError(key)
        others[key] = data

    def replace(self, key: str, data: bytes) -> None:
        self._reach(len(data) / _BYTES_PER_SECOND).others[key] = data

    def read(self, key: str) -> bytes:
        others = self._reach().others
        if key not in others:
            raise ObjectNotFoundError(f"There is no {key}")
        return others[key]

    def read_tail(self, key: str, nbytes: int, *, size: int | None = None) -> bytes:
        self.spent += self._request_seconds / _READERS
        self._check()
        record = self._objects.find(key)
        if record is None:
            raise ObjectNotFoundError(f"There is no {key}")
        return _footer(record)

    def exists(self, key: str) -> bool:
        objects = self._reach()
        return key in objects.others or objects.find(key) is not None

    def size(self, key: str) -> int:
        record = self._reach().find(key)
        return record.size if record else len(self.read(key))

    def list_objects(self, prefix: str, beginning: str = "") -> list[StoredObject]:
        directory = prefix.strip("/") + "/"
        objects = self._reach()
        if directory == DATA_PREFIX:
            self.spent += self._request_seconds * (len(objects) // _KEYS_PER_PAGE)
            return [
                StoredObject(key=rows.key, size=BYTES_PER_ROW * rows.num_rows)
                for rows in objects.partitions()
            ]
        return [
            StoredObject(key=key, size=len(data))
            for key, data in sorted(objects.others.items())
            if key.startswith(directory + beginning) or directory == "/"
        ]

    def now(self) -> float:
        return 0.0

    def delete(self, key: str) -> None:
        self._reach().others.pop(key, None)

    def remove_leftovers(self) -> int:
        return 0

    def probe(self) -> bool:
        try:
            self._reach()
        except StorageError as exc:
            raise PreflightError(str(exc)) from exc
        return True


@lru_cache(maxsize=8)
def _rows(number: int) -> pa.Table:
    return pa.table({"row_id": pa.array([0] * number, pa.int64())})


def _footer(record: PartitionRecord) -> bytes:
    """The end of a Parquet file of so many rows, with the record in its footer."""
    footer = asdict(record)
    del footer["size"], footer["sha256"]
    sink = pa.BufferOutputStream()
    pq.write_table(_rows(record.rows).replace_schema_metadata({FOOTER_KEY: json.dumps(footer)}), sink)
    data: bytes = sink.getvalue().to_pybytes()
    return data
