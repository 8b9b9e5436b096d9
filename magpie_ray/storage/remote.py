"""Everything that fsspec opens, except a local disk, as a store of whole objects.

Owns: the client's settings and conditional creation. The client's own retries are off, because
storage.storage.Storage retries.
Invariants: an object is uploaded as one whole body, or gets its name by a move (storage.moving). A file
handle that fails would publish what it has.
"""

import errno
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from magpie_ray.storage import clients, moving
from magpie_ray.storage.failures import answer_of, bucket_is_missing, is_transient
from magpie_ray.types import StoredObject

# Small enough that a failed part is cheap and several parts travel at once. An object of two parts or more
# goes in parts.
PART_BYTES = 32 * 2**20
_NEVER_IN_PARTS = 2**42
# No upload of ours takes an hour: a partition is some minutes of one actor, and a part that makes no progress
# times out after one. A live upload that is aborted by mistake, as after a clock jump, starts again.
LEFTOVER_SECONDS = 3_600.0

# Only the last so many bytes, in one request. Azure has no such ranges, others ask for the size themselves.
_SUFFIX_RANGES = {"s3", "s3a"}

# Listings of the names that begin with a text. Others list the whole directory.
_PREFIX_LISTINGS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"}

# The field with the time of the last write: S3, Azure, GCS, many others, memory.
_MODIFIED = ("LastModified", "last_modified", "updated", "mtime", "created")

_MEMORY_LOCK = threading.Lock()


class RemoteStore:
    """A Store of objects below a URL. Raises what the client library raises.

    part_bytes: S3 gets an object of two such parts or more in parts. leftover_seconds: an unfinished upload
    that is older is a leftover. can_be_exclusive: whether the client sends the condition with the upload.
    writes_whole: False where a kill could leave half an object.
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
        self._protocol = protocol
        self._fs, root = clients.connect(protocol, url, options)
        self._root = str(root).rstrip("/")
        self._exclusive = exclusive
        self._leftover_seconds = leftover_seconds
        self.can_be_exclusive = moving.creates_whole_objects(self._fs, protocol)
        self.writes_whole = self.can_be_exclusive or moving.renames(self._fs)
        self._upload: dict[str, Any] = {}
        if protocol in ("s3", "s3a"):
            self._upload = {"chunksize": part_bytes}
        elif protocol in ("gs", "gcs"):  # in one request, which names the condition
            self._upload = {"chunksize": _NEVER_IN_PARTS}
        # With more, s3fs asks for the size before each read.
        self._download: dict[str, Any] = {"max_concurrency": 1} if protocol in ("s3", "s3a") else {}
        # fsspec's in-memory file system looks and then writes.
        self._lock: AbstractContextManager[Any] = _MEMORY_LOCK if protocol == "memory" else nullcontext()

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        condition = {"mode": "create"} if self._exclusive else {}
        with self._lock:
            if (look_first or not self._exclusive) and self.size(key) is not None:
                return self._require_own(key, data)
            try:
                self._put(key, data, condition)
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
        self._put(key, data, {})

    def _put(self, key: str, data: bytes, condition: Mapping[str, str]) -> None:
        if self.can_be_exclusive:
            self._fs.pipe_file(f"{self._root}/{key}", data, **self._upload, **condition)
        elif condition:
            raise NotImplementedError(
                f"{self._protocol}:// looks and then writes: it can't create exclusively"
            )
        else:
            moving.write(self._fs, self._root, key, data)

    def read(self, key: str) -> bytes:
        with _missing_by_errno():
            return bytes(self._fs.cat_file(f"{self._root}/{key}", **self._download))

    def read_tail(self, key: str, nbytes: int, size: int | None) -> bytes:
        path = f"{self._root}/{key}"
        if self._protocol not in _SUFFIX_RANGES:
            with _missing_by_errno():
                size = int(self._fs.info(path)["size"]) if size is None else size
                start = max(0, size - nbytes)
                return bytes(self._fs.cat_file(path, start=start, end=size)) if size else b""
        try:
            return bytes(self._fs.cat_file(path, start=-nbytes))
        except OSError as exc:
            if answer_of(exc)[0] == 416:  # an empty object has no tail
                return b""
            raise

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        with _missing_by_errno():
            return bytes(self._fs.cat_file(f"{self._root}/{key}", start=start, end=stop))

    def size(self, key: str) -> int | None:
        try:  # not fs.exists: several file systems return False for any failure
            with _missing_by_errno():
                info = self._fs.info(f"{self._root}/{key}")
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return None
        except OSError as exc:
            if not is_transient(exc):  # the reply to a HEAD has no reason; a GET fails with one
                with suppress(FileNotFoundError):
                    self.read_tail(key, 1, None)
            raise
        return int(info["size"]) if info["type"] == "file" else None

    def list_objects(self, prefix: str, beginning: str) -> list[StoredObject]:
        listed = self._listed(prefix, beginning)
        return listed if self.can_be_exclusive else moving.without_temporaries(listed)

    def _listed(self, prefix: str, beginning: str) -> list[StoredObject]:
        only = {"prefix": beginning} if beginning and self._protocol in _PREFIX_LISTINGS else {}
        try:
            infos = self._fs.find(f"{self._root}/{prefix}".rstrip("/"), detail=True, **only)
        except FileNotFoundError as exc:
            if bucket_is_missing(exc):
                raise
            return []
        start = f"{prefix}/{beginning}" if beginning else ""
        return [
            StoredObject(key=name[len(self._root) + 1 :], size=int(info["size"]), modified=modified_at(info))
            for name, info in infos.items()
            if info["type"] == "file"
            and not name.endswith("/")  # a console's placeholder for a directory
            and name[len(self._root) + 1 :].startswith(start)
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
        with _missing_by_errno():
            self._fs.rm_file(f"{self._root}/{key}")

    def remove_leftovers(self) -> int:
        """Aborts multipart uploads that can't finish any more: old ones, and those of existing objects.

        Where files get their names by a move, removes those that wait for theirs since yesterday.
        """
        if not self.can_be_exclusive:
            left = list(moving.leftovers(self._listed(moving.TEMPORARY, "")))
            for key in left:
                with suppress(FileNotFoundError):
                    self.delete(key)
            return len(left)
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

    def completes_exclusively(self, key: str) -> bool:
        """Whether the completion of an upload in parts over an existing object is refused."""
        if not hasattr(self._fs, "abort_mpu"):
            return True
        bucket, name, _ = self._fs.split_path(f"{self._root}/{key}")
        place: dict[str, Any] = {"Bucket": bucket, "Key": name}
        place["UploadId"] = self._fs.call_s3("create_multipart_upload", **place)["UploadId"]
        try:
            part = self._fs.call_s3("upload_part", PartNumber=1, Body=b"in parts", **place)
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            self._fs.call_s3("complete_multipart_upload", MultipartUpload=parts, IfNoneMatch="*", **place)
        except Exception as exc:
            if isinstance(exc, FileExistsError) or answer_of(exc)[0] == 412:
                return True
            raise
        else:
            return False
        finally:
            with suppress(Exception):
                self._fs.abort_mpu(bucket, name, place["UploadId"])

    def _uploads(self, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        """The multipart uploads that have started and not ended."""
        after: dict[str, str] = {}
        while True:
            page = self._fs.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **after)
            yield from page.get("Uploads", [])
            if not page.get("IsTruncated"):
                return
            after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


@contextmanager
def _missing_by_errno() -> Iterator[None]:
    """smbprotocol reports a missing file as an OSError that is no FileNotFoundError."""
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.ENOENT or isinstance(exc, FileNotFoundError):
            raise
        raise FileNotFoundError(exc.errno, str(exc)) from exc


def modified_at(info: Mapping[str, Any]) -> float | None:
    """When an object was written, in seconds since 1970, from its listing: a datetime, a text or a number."""
    value = next((info[name] for name in _MODIFIED if info.get(name)), None)
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None
