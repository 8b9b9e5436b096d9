"""Everything that fsspec opens, except a local disk, as a store of whole objects.

Owns: the client's settings and conditional creation. The client's own retries are off, because
storage.storage.Storage retries.
Invariants: an object is uploaded as one whole body. A file handle that fails would publish what it has.
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

# Small enough that a failed part is cheap and several parts travel at once. An object of two parts or more
# goes in parts.
PART_BYTES = 32 * 2**20
# No upload of ours takes an hour: a partition is some minutes of one actor, and a part that makes no progress
# times out after one. A live upload that is aborted by mistake, as after a clock jump, starts again.
LEFTOVER_SECONDS = 3_600.0

# The field with the time of the last write: S3, Azure, GCS, many others, memory.
_MODIFIED = ("LastModified", "last_modified", "updated", "mtime", "created")

_MEMORY_LOCK = threading.Lock()


class RemoteStore:
    """A Store of objects below a URL. Raises what the client library raises.

    part_bytes: S3 gets an object of two such parts or more in parts. leftover_seconds: an unfinished upload
    that is older is a leftover.
    """

    def __init__(
        self,
        protocol: str,
        url: str,
        options: Mapping[str, object],
        exclusive: bool,
        *,
        part_bytes: int = PART_BYTES,
        leftover_seconds: float = LEFTOVER_SECONDS,
    ) -> None:
        settings: dict[str, Any] = dict(options)
        self._upload: dict[str, Any] = {}
        self._download: dict[str, Any] = {}
        if protocol in ("s3", "s3a"):
            self._upload["chunksize"] = part_bytes
            self._download["max_concurrency"] = 1  # with more, s3fs asks for the size before each read
            settings["config_kwargs"] = {
                "retries": {"total_max_attempts": 1},
                "connect_timeout": 10,
                "read_timeout": 60,
                **(settings.get("config_kwargs") or {}),
            }
        # An instance of its own without a listing cache: a shared instance returns outdated listings.
        self._fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **settings)
        self._root = str(root).rstrip("/")
        self._exclusive = exclusive
        self._leftover_seconds = leftover_seconds
        if hasattr(self._fs, "retries"):
            self._fs.retries = 1
        # fsspec's in-memory file system looks and then writes.
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if protocol == "memory" else nullcontext()

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        condition = {"mode": "create"} if self._exclusive else {}
        with self._lock:
            if (look_first or not self._exclusive) and self.size(key) is not None:
                return self._require_own(key, data)
            try:
                self._fs.pipe_file(f"{self._root}/{key}", data, **self._upload, **condition)
            except Exception as exc:
                # Not every S3 names the failed condition; s3fs then raises no FileExistsError.
                if not isinstance(exc, FileExistsError) and answer_of(exc)[0] != 412:
                    raise
                # Even at the first attempt: an HTTP client repeats a PUT when a kept-alive connection drops.
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
        try:  # not fs.exists: several file systems return False for any failure
            info = self._fs.info(f"{self._root}/{key}")
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return None
        except OSError as exc:
            if not is_transient(exc):  # the reply to a HEAD has no reason; a GET fails with one
                with suppress(FileNotFoundError):
                    self.read_tail(key, 1)
            raise
        return int(info["size"]) if info["type"] == "file" else None

    def list_objects(self, prefix: str) -> list[StoredObject]:
        try:
            infos = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True)
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return []
        return [
            StoredObject(key=name[len(self._root) + 1 :], size=int(info["size"]), modified=modified_at(info))
            for name, info in infos.items()
            if info["type"] == "file" and not name.endswith("/")  # a console's placeholder for a directory
        ]

    def now(self) -> float:
        """On S3 the date header of a reply, in whole seconds; elsewhere this machine's time."""
        if not hasattr(self._fs, "call_s3"):
            return time.time()
        bucket, prefix, _ = self._fs.split_path(self._root)
        reply = self._fs.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        date = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date).timestamp() if date else time.time()

    def delete(self, key: str) -> None:
        self._fs.rm_file(f"{self._root}/{key}")

    def remove_leftovers(self) -> int:
        """Aborts multipart uploads that can't finish any more: old ones, and those of existing objects."""
        if not hasattr(self._fs, "abort_mpu"):
            return 0
        bucket, root, _ = self._fs.split_path(self._root)
        # Only below our own directories: the bucket, and even the prefix, may hold uploads of others.
        prefixes = [f"{root}/{directory}/".lstrip("/") for directory in ("data", "_magpie")]
        removed = 0
        for upload in [upload for prefix in prefixes for upload in self._uploads(bucket, prefix)]:
            age = (datetime.now(UTC) - upload["Initiated"]).total_seconds()
            key = f"{bucket}/{upload['Key']}".removeprefix(f"{self._root}/")
            if age > self._leftover_seconds or self.size(key) is not None:
                with suppress(FileNotFoundError):  # the writer or another cleaner ended it first
                    self._fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
                    removed += 1
        return removed

    def _uploads(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        """The multipart uploads that have started and not ended."""
        after: dict[str, str] = {}
        while True:
            page = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def modified_at(info: Mapping[str, Any]) -> float | None:
    """When an object was written, in seconds since 1970, from its listing: a datetime, a text or a number."""
    value = next((info[name] for name in _MODIFIED if info.get(name)), None)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None
