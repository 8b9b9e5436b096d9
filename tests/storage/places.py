"""Where storage is tested, and what its tests share."""

import contextlib
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from magpie_ray.errors import AlreadyExistsError
from magpie_ray.storage.storage import Storage
from tests.support.s3_server import S3Server

PART = 64 * 2**10


def on_s3(server: S3Server, **settings: Any) -> Storage:
    """A place of its own on the server, for a client that waits for little."""
    url = f"s3://{server.bucket}/{uuid.uuid4().hex}"
    return Storage(url, server.storage_options, **{"max_wait_seconds": 0.02, **settings})


def keys(storage: Storage, prefix: str = "") -> list[str]:
    return [stored.key for stored in storage.list_objects(prefix)]


def winners(count: int, create: Callable[[int], None]) -> list[int]:
    """Lets `count` threads create at the same moment; returns those that were not refused."""
    barrier = threading.Barrier(count)

    def attempt(writer: int) -> bool:
        barrier.wait()
        try:
            create(writer)
        except AlreadyExistsError:
            return False
        return True

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places between any two steps
    try:
        with ThreadPoolExecutor(count) as pool:
            return [writer for writer, won in enumerate(pool.map(attempt, range(count))) if won]
    finally:
        sys.setswitchinterval(interval)


def open_uploads(server: S3Server, storage: Storage) -> int:
    with contextlib.closing(server.client()) as client:
        prefix = storage.url.partition(server.bucket + "/")[2]
        answer = client.list_multipart_uploads(Bucket=server.bucket, Prefix=prefix)
        return len(answer.get("Uploads", []))


def begin_upload(server: S3Server, storage: Storage, key: str) -> None:
    with contextlib.closing(server.client()) as client:
        client.create_multipart_upload(
            Bucket=server.bucket, Key=storage.display(key).partition(server.bucket + "/")[2]
        )
