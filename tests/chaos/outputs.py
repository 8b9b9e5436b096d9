"""The output of a chaos build, seen from outside: its progress, and every row in it.

Read with boto3 and pyarrow alone and past the proxy, so that the checks share no code with the product.
"""

import io
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow.parquet as pq

from magpie_ray.dataset.verify import verify
from magpie_ray.storage.storage import Storage
from tests.chaos.ground import Ground
from tests.chaos.jobs import Job

_PARTITION = re.compile(r"/data/part-\d+\.parquet$")


class Output(Protocol):
    """One build's output."""

    @property
    def url(self) -> str: ...

    def uploads(self) -> int:
        """How often a file was put into data/."""

    def files(self) -> list[bytes]:
        """All files in data/."""

    def storage(self) -> Storage: ...

    def drop(self, key: str) -> None:
        """Put a file there that magpie-ray did not write."""

    def remove_records(self) -> None:
        """Delete everything below _magpie/."""


@dataclass(frozen=True, slots=True)
class S3Output:
    """A prefix of the bucket; the job goes through the proxy, this does not."""

    ground: Ground
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.ground.server.bucket}/{self.name}"

    def uploads(self) -> int:
        return self.ground.proxy.uploads[self.name]

    def files(self) -> list[bytes]:
        client, bucket = self.ground.server.client(), self.ground.server.bucket
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{self.name}/data/")
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return [
            client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys if _PARTITION.search(key)
        ]

    def storage(self) -> Storage:
        return Storage(self.url, self.ground.server.storage_options)

    def drop(self, key: str) -> None:
        self.ground.server.client().put_object(
            Bucket=self.ground.server.bucket, Key=f"{self.name}/{key}", Body=b"?"
        )

    def remove_records(self) -> None:
        client, bucket = self.ground.server.client(), self.ground.server.bucket
        pages = client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{self.name}/_magpie/"
        )
        for found in (found for page in pages for found in page.get("Contents", [])):
            client.delete_object(Bucket=bucket, Key=found["Key"])


@dataclass(frozen=True, slots=True)
class LocalOutput:
    """A folder."""

    path: Path

    @property
    def url(self) -> str:
        return str(self.path)

    def uploads(self) -> int:
        return len(list((self.path / "data").glob("part-*.parquet")))

    def files(self) -> list[bytes]:
        return [path.read_bytes() for path in (self.path / "data").glob("part-*.parquet")]

    def storage(self) -> Storage:
        return Storage(self.url)

    def drop(self, key: str) -> None:
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")

    def remove_records(self) -> None:
        shutil.rmtree(self.path / "_magpie", ignore_errors=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What became of rows 0..num_rows-1. foreign: rows with other ids."""

    num_rows: int
    lost: int
    twice: int
    foreign: int
    problems: tuple[str, ...]


def count_rows(output: Output, num_rows: int, job: Job) -> Rows:
    """Every row_id of every file, counted; what the job finds wrong with its rows, and what verify says."""
    seen, complaints = Counter[int](), list[str]()
    for content in output.files():
        rows = pq.read_table(io.BytesIO(content), columns=list(job.columns)).to_pylist()
        seen.update(row["row_id"] for row in rows)
        complaints += job.complaints(rows)
    return Rows(
        num_rows=num_rows,
        lost=sum(row_id not in seen for row_id in range(num_rows)),
        twice=sum(times - 1 for times in seen.values()),
        foreign=sum(not 0 <= row_id < num_rows for row_id in seen),
        problems=(*complaints, *verify(output.storage()).problems),
    )
