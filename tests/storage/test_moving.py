"""Stores whose files grow while they are written: a single writer, and a rename once the file is whole."""

import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from magpie_ray.errors import AlreadyExistsError, ObjectNotFoundError, PreflightError, StorageError
from magpie_ray.preflight.checks import check_output
from magpie_ray.storage.storage import Storage
from tests.storage.places import keys
from tests.support.ftp_server import FtpServer


class Growing(MemoryFileSystem):
    """A store with fsspec's own way of writing, where a kill may leave half a file; it can rename.

    renames: over an existing file, or refusing to with an error or without a word, as webhdfs does.
    """

    protocol = "growing"
    renames = "over a file"
    dies = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:  # that of memory:// knows its own name only
        return super()._strip_protocol(path.removeprefix("growing://"))

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        super().pipe_file(path, value[: len(value) // 2])
        if self.dies:
            raise KeyboardInterrupt
        super().pipe_file(path, value)

    def mv(self, path1: str, path2: str, **kwargs: object) -> None:
        if self.exists(path2) and self.renames != "over a file":
            if self.renames == "with an error":
                raise OSError("the file exists")
            return
        super().mv(path1, path2)


@pytest.fixture(autouse=True)
def growing() -> Iterator[type[Growing]]:
    fsspec.register_implementation("growing", Growing, clobber=True)
    yield Growing
    Growing.renames, Growing.dies = "over a file", False


def test_a_store_that_looks_and_then_writes_needs_a_single_writer() -> None:
    storage = Storage(f"growing://{uuid.uuid4().hex}")
    assert storage.probe() is False
    with pytest.raises(PreflightError, match=r"output\.single_writer: true"):
        check_output(storage, single_writer=False)
    alone = check_output(storage, single_writer=True)
    alone.create("data/a", b"12345")
    with pytest.raises(AlreadyExistsError):
        alone.create("data/a", b"67890")
    assert (alone.read("data/a"), keys(alone)) == (b"12345", ["data/a"])


def test_even_unasked_such_a_store_is_never_taken_to_be_exclusive() -> None:
    with pytest.raises(StorageError, match=r"growing:// looks and then writes"):
        Storage(f"growing://{uuid.uuid4().hex}").create("data/a", b"x")


@pytest.mark.parametrize("call", ["create", "replace"])
def test_a_kill_never_leaves_half_a_file_under_its_name(growing: type[Growing], call: str) -> None:
    storage = Storage(f"growing://{uuid.uuid4().hex}").for_single_writer()
    growing.dies = True
    with pytest.raises(KeyboardInterrupt):
        getattr(storage, call)("data/a", b"12345678")
    assert keys(storage) == []


@pytest.mark.parametrize("renames", ["over a file", "with an error", "without a word"])
def test_a_file_is_replaced_however_the_store_renames(growing: type[Growing], renames: str) -> None:
    growing.renames = renames
    storage = Storage(f"growing://{uuid.uuid4().hex}").for_single_writer()
    for data in (b"first", b"the second"):
        storage.replace("_magpie/manifest.json", data)
        assert (storage.read("_magpie/manifest.json"), keys(storage)) == (data, ["_magpie/manifest.json"])


def test_a_move_whose_answer_is_lost_leaves_the_file_under_its_name(
    growing: type[Growing], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"growing://{uuid.uuid4().hex}").for_single_writer()
    move = growing.mv

    def moved(fs: Growing, path1: str, path2: str, **kwargs: object) -> None:
        move(fs, path1, path2, **kwargs)
        raise ConnectionResetError

    monkeypatch.setattr(growing, "mv", moved)
    storage.create("data/a", b"12345")
    assert (storage.read("data/a"), storage.retries) == (b"12345", 0)


class OddlyMissingError(OSError):
    """As smbclient raises it: no FileNotFoundError, though its errno says so."""


class Share(Growing):
    """A store that reports a missing file as smbclient does."""

    def info(self, path: str, **kwargs: object) -> object:
        self._require(path)
        return super().info(path, **kwargs)

    def cat_file(self, path: str, **kwargs: object) -> object:
        self._require(path)
        return super().cat_file(path, **kwargs)

    def rm_file(self, path: str) -> None:
        self._require(path)
        super().rm_file(path)

    def _require(self, path: str) -> None:
        if self._strip_protocol(path) not in self.store:
            raise OddlyMissingError(errno.ENOENT, "no such file", path)


def test_a_missing_file_is_known_by_its_errno() -> None:
    fsspec.register_implementation("growing", Share, clobber=True)
    storage = Storage(f"growing://{uuid.uuid4().hex}").for_single_writer()
    for look in (storage.read, lambda key: storage.read_tail(key, 1), storage.size):
        with pytest.raises(ObjectNotFoundError):
            look("data/a")
    storage.delete("data/a")
    storage.create("data/a", b"x")
    assert (storage.read("data/a"), storage.exists("data/b")) == (b"x", False)


def test_temporary_files_of_dead_writers_are_hidden_and_removed_once_they_are_old() -> None:
    storage = Storage(f"growing://{uuid.uuid4().hex}").for_single_writer()
    storage.create("data/a", b"x")
    files = MemoryFileSystem()
    left = f"/{storage.url.removeprefix('growing://')}/_magpie/tmp/left"
    files.pipe_file(left, b"half")
    assert (keys(storage), storage.remove_leftovers()) == (["data/a"], 0)
    files.store[left].created = files.store[left].created.replace(year=2020)
    assert (storage.remove_leftovers(), files.exists(left)) == (1, False)


def test_a_store_that_can_not_even_rename_is_refused() -> None:
    class Unmoving(Growing):
        protocol = "growing"
        mv = fsspec.AbstractFileSystem.mv

    fsspec.register_implementation("growing", Unmoving, clobber=True)
    with pytest.raises(
        PreflightError, match=r"growing:// can neither create .* nor rename .*magpie-ray push"
    ):
        Storage(f"growing://{uuid.uuid4().hex}").probe()


def test_an_ftp_server_takes_whole_files_from_a_single_writer(ftp_server: FtpServer) -> None:
    storage = Storage(f"{ftp_server.url}/out", ftp_server.storage_options)
    assert storage.probe() is False
    alone = check_output(storage, single_writer=True)
    data = os.urandom(300_000)
    sizes, over = set[int](), threading.Event()

    def watch() -> None:
        while not over.is_set():
            path = ftp_server.root / "out" / "data" / "a"
            sizes.update([path.stat().st_size] if path.exists() else [])
            time.sleep(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    alone.create("data/a", data)
    over.set()
    watcher.join()
    assert sizes <= {len(data)}
    with pytest.raises(AlreadyExistsError):
        alone.create("data/a", b"other")
    alone.replace("_magpie/manifest.json", b"1")
    alone.replace("_magpie/manifest.json", b"22")
    assert (alone.read("data/a"), alone.read_tail("data/a", 9)) == (data, data[-9:])
    assert alone.read("_magpie/manifest.json") == b"22"
    assert keys(alone) == ["_magpie/manifest.json", "data/a"]
    alone.delete("data/a")
    assert not alone.exists("data/a")
