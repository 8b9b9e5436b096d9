"""Anything but a local disk that fsspec opens, as a store of whole objects.

Owns: the settings of the client (its own retries are off: storage.Storage retries) and conditional creation.
Whole bodies only: a file handle that fails publishes what it has.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import fsspec

from magpie_ray.storage.failures import answer_of, bucket_is_missing, is_transient
from magpie_ray.types import StoredObject

# Parts small enough that a failed one is cheap and several travel at once; two of them or more go in parts.
PART_BYTES = 32 * 2**20
# No upload of ours takes an hour: a partition is some minutes of one actor, and a part that stands still
# times out after one. One that is aborted all the same, as by a clock that jumped, begins again.
_LEFTOVER_SECONDS = 3_600.0

# What file systems call the time of the last write: S3, Azure, GCS, many others, memory.
_MODIFIED = ("LastModified", "last_modified", "updated", "mtime", "created")

_MEMORY_LOCK = threading.Lock()


class RemoteStore:
    """Objects under a URL. Raises what the client library raises."""

    def __init__(self, protocol: str, url: str, options: Mapping[str, object], exclusive: bool) -> None:
        settings: dict[str, Any] = dict(options)
        self._upload: dict[str, Any] = {}
        self._download: dict[str, Any] = {}
        if protocol in ("s3", "s3a"):
            self._upload["chunksize"] = PART_BYTES
            self._download["max_concurrency"] = 1  # with more it looks how much to share out before each read
            settings["config_kwargs"] = {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 10,
                "read_timeout": 60,
                **(settings.get("config_kwargs") or {}),
            }
        # Its own instance, without a listing cache: shared ones show old listings to whoever comes later.
        self._fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **settings)
        self._root = str(root).rstrip("/")
        self._exclusive = exclusive
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1
        # The in-memory file system looks and then writes.
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if protocol == "memory" else nullcontext()

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        path = f"{self._root}/{key}"
        with self._lock:
            if (look_first or not self._exclusive) and self.size(key) is not None:
                return self._require_own(key, data)
            try:
                self._fs.pipe_file(
                    path, data, **self._upload, **({"mode": "create"} if self._exclusive else {})
                )
            except Exception as exc:
                # Not every S3 names the condition that failed, and then s3fs has no FileExistsError for it.
                if not isinstance(exc, FileExistsError) and answer_of(exc)[0] != 412:
                    raise
                # Even at our first try: HTTP clients repeat a PUT by themselves when a kept connection drops.
                self._require_own(key, data)

    def _require_own(self, key: str, data: bytes) -> None:
        if self.size(key) != len(data) or self.read(key) != data:
            raise FileExistsError(key)

    def replace(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self._root}/{key}", data, **self._upload)

    def read(self, key: str) -> bytes:
        return bytes(self._fs.cat_file(f"{self._root}/{key}", **self._download))

    def read_tail(self, key: str, nbytes: int) -> bytes:
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{key}", start=-nbytes))
        except OSError as exc:
            if answer_of(exc)[0] == 416:  # an empty object has no tail
                return b""
            raise

    def size(self, key: str) -> int | None:
        try:  # not fs.exists, which takes any failure for "no" in several file systems
            info = self._fs.info(f"{self._root}/{key}")
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return None
        except OSError as exc:
            if not is_transient(exc):  # the answer to a HEAD can't say why; a GET does, by failing too
                with suppress(FileNotFoundError):
                    self.read_tail(key, 1)
            raise
        return int(info["size"]) if info["type"] == "file" else None

    def list_objects(self, prefix: str) -> list[StoredObject]:
        try:
            found = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return []
        return [
            StoredObject(key=name[len(self._root) + 1 :], size=int(info["size"]), modified=_modified(info))
            for name, info in found.items()
            if info["type"] == "file" and not name.endswith("/")  # a console's stand-in for a directory
        ]

    def now(self) -> float:
        """Of S3 the time in the head of an answer, in whole seconds; elsewhere this machine's."""
        if not hasattr(self._fs, "call_s3"):
            return time.time()
        bucket, prefix, _ = self._fs.split_path(self._root)
        answer = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(told).timestamp() if told else time.time()

    def delete(self, key: str) -> None:
        self._fs.rm_file(f"{self._root}/{key}")

    def remove_leftovers(self) -> int:
        """Aborts the uploads in parts that can't end any more: of objects that exist, and old ones."""
        if not hasattr(self._fs, "abort_mpu"):
            return 0
        bucket, root, _ = self._fs.split_path(self._root)
        # Only below our own directories: a bucket, and even a prefix, may hold uploads of others.
        prefixes = [f"{root}/{directory}/".lstrip("/") for directory in ("data", "_magpie")]
        removed = 0
        for upload in [upload for prefix in prefixes for upload in self._uploads(bucket, prefix)]:
            age = (datetime.now(UTC) - upload["Initiated"]).total_seconds()
            key = f"{bucket}/{upload['Key']}".removeprefix(f"{self._root}/")
            if age > _LEFTOVER_SECONDS or self.size(key) is not None:
                with suppress(FileNotFoundError):  # its writer, or another cleaner, was quicker
                    self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    def _uploads(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        """The uploads in parts that have begun and not ended."""
        after: dict[str, str] = {}
        while True:
            page = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _modified(info: Mapping[str, Any]) -> float | None:
    """When an object was written, as a listing tells it: a time, a text or a number of seconds."""
    told = next((info[name] for name in _MODIFIED if info.get(name)), None)
    if isinstance(told, str):
        with suppress(ValueError):
            told = datetime.fromisoformat(told)
    if isinstance(told, datetime):
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    return float(told) if isinstance(told, int | float) else None
