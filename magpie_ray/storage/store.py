"""Store: one kind of place behind Storage. Makes one attempt at a time, and knows nothing of retries."""

from collections.abc import Mapping
from typing import Protocol

from magpie_ray.storage.local import LocalStore
from magpie_ray.storage.remote import RemoteStore
from magpie_ray.types import StoredObject


class Store(Protocol):
    """LocalStore or RemoteStore.

    Keys are relative paths. Methods make one attempt and raise whatever their libraries raise.
    can_be_exclusive: whether `create` can leave it to the store which of two creators is first. writes_whole:
    whether a kill never leaves half an object under its name.
    """

    can_be_exclusive: bool
    writes_whole: bool

    def create(self, key: str, data: bytes, *, look_first: bool) -> None:
        """FileExistsError when the object exists. look_first: it may be ours, from an earlier attempt."""

    def replace(self, key: str, data: bytes) -> None: ...

    def read(self, key: str) -> bytes: ...

    def read_tail(self, key: str, nbytes: int, size: int | None) -> bytes: ...

    def read_range(self, key: str, start: int, stop: int) -> bytes: ...

    def size(self, key: str) -> int | None:
        """Bytes; None when there is no object under that key."""

    def list_objects(self, prefix: str, beginning: str) -> list[StoredObject]: ...

    def now(self) -> float: ...

    def delete(self, key: str) -> None: ...

    def remove_leftovers(self) -> int: ...

    def completes_exclusively(self, key: str) -> bool:
        """Whether the completion of an upload in parts over that object is refused; True without parts."""


def open_store(
    protocol: str, url: str, options: Mapping[str, object], *, exclusive: bool, part_bytes: int
) -> Store:
    """The store of a URL. Imports its client library."""
    if protocol == "file":
        return LocalStore(url, exclusive)
    return RemoteStore(protocol, url, options, exclusive, part_bytes=part_bytes)
