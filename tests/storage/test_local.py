"""A local disk: writers that are killed, leftovers, full disks and disks without hard links."""

import contextlib
import errno
import fcntl
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from magpie_ray.errors import AlreadyExistsError, BlockedError, NoRoomError, PreflightError, StorageError
from magpie_ray.storage.storage import Storage
from tests.storage.places import keys

KILLED = """
import os, stat, sys
from magpie_ray.storage import Storage

def stop(*_):
    print("here", flush=True)
    sys.stdin.read()

sync, link = os.fsync, os.link
if sys.argv[2] == "half written":
    os.fsync = lambda fd: stop() if stat.S_ISREG(os.fstat(fd).st_mode) else sync(fd)
elif sys.argv[2] == "written":
    os.link = stop
elif sys.argv[2] == "named":
    os.link = lambda *paths: (link(*paths), stop())
Storage(sys.argv[1]).create("data/part-0.parquet", b"x" * 100_000)
"""


@pytest.mark.parametrize(("moment", "visible"), [("half written", 0), ("written", 0), ("named", 1)])
def test_a_writer_killed_at_any_moment_leaves_nothing_short(
    tmp_path: Path, moment: str, visible: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path), moment]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
    storage = Storage(str(tmp_path))
    assert [stored.size for stored in storage.list_objects("")] == [100_000] * visible
    assert (storage.remove_leftovers(), temporaries(tmp_path)) == (1, [])
    assert [stored.size for stored in storage.list_objects("")] == [100_000] * visible


@pytest.mark.parametrize("thing", ["directory", "dangling link", "link to a directory", "pipe"])
@pytest.mark.parametrize("exclusive", [True, False])
def test_what_is_no_file_in_the_place_of_one_is_named_at_once(
    tmp_path: Path, thing: str, exclusive: bool
) -> None:
    storage = Storage(str(tmp_path), exclusive=exclusive)
    storage.create("data/part-4.parquet", b"another")
    path = tmp_path / "data" / "part-0.parquet"
    match thing:
        case "directory":
            path.mkdir()
        case "dangling link":
            path.symlink_to(tmp_path / "gone")
        case "link to a directory":
            path.symlink_to(tmp_path / "data")
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(BlockedError, match=rf"no file is in its place: '{path}'\. Move it away, then run"):
        storage.create("data/part-0.parquet", b"rows")
    assert storage.retries == 0


def test_a_link_to_a_file_counts_as_the_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.create("data/part-0.parquet", b"rows")
    (tmp_path / "data" / "part-4.parquet").symlink_to(tmp_path / "data" / "part-0.parquet")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/part-4.parquet", b"others")


def temporaries(output: Path) -> list[Path]:
    return list((output / "_magpie" / "tmp").iterdir())


@contextlib.contextmanager
def writer_at_work(output: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a write; killed on leaving if it still is."""
    command = [sys.executable, "-c", KILLED, str(output), "half written"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "here\n"
            yield process
        finally:
            process.kill()


def test_the_file_of_a_live_writer_stays_however_old_and_its_write_succeeds(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with writer_at_work(tmp_path) as writer:
        os.utime(temporaries(tmp_path)[0], (0, 0))
        assert (storage.remove_leftovers(), len(temporaries(tmp_path))) == (0, 1)
        writer.communicate(timeout=60)  # its standard input ends, and so does its wait
        assert writer.returncode == 0
    assert keys(storage) == ["data/part-0.parquet"]
    assert temporaries(tmp_path) == []


@pytest.mark.parametrize("reason", ["another host", "no locks"])
def test_where_locks_tell_nothing_only_old_files_are_leftovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with writer_at_work(tmp_path):
        pass
    [left] = temporaries(tmp_path)
    if reason == "another host":
        left = left.rename(left.with_name("elsewhere.1-abc"))
    else:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    storage = Storage(str(tmp_path))
    storage.create("data/a", b"written all the same")
    assert storage.remove_leftovers() == 0
    os.utime(left, (0, 0))
    assert (storage.remove_leftovers(), temporaries(tmp_path)) == (1, [])


@pytest.mark.parametrize("moment", ["before the lock", "after the lock"])
def test_a_writer_whose_file_is_taken_for_a_leftover_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """A cleaner between creation and lock; and one that goes by a clock that jumped."""
    storage, taken = Storage(str(tmp_path), max_wait_seconds=0.01), list[int]()
    flock, link = fcntl.flock, os.link

    def clean_then_lock(file: BinaryIO, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        taken.append(Storage(str(tmp_path)).remove_leftovers())
        flock(file, operation)

    def lose_then_link(source: str, target: str) -> None:
        monkeypatch.setattr(os, "link", link)
        os.unlink(source)
        taken.append(1)
        link(source, target)

    if moment == "before the lock":
        monkeypatch.setattr(fcntl, "flock", clean_then_lock)
    else:
        monkeypatch.setattr(os, "link", lose_then_link)
    storage.create("data/a", b"x")
    assert (taken, storage.read("data/a"), temporaries(tmp_path)) == ([1], b"x", [])


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage = Storage(str(tmp_path))
    storage.create("data/a", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoRoomError, match="Free some space"):
            storage.create("data/b", b"y")
    assert keys(storage) == ["data/a"]
    assert temporaries(tmp_path) == []


FULL = """
import os, resource, sys
from magpie_ray.errors import StorageError
from magpie_ray.storage import Storage

storage = Storage(sys.argv[1])
storage.create("data/a", b"x")
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
try:
    storage.create("data/b", b"y" * 2_000_000)
except StorageError as exc:
    print(exc)
for parent, _, names in os.walk(sys.argv[1]):
    for name in names:
        print(os.path.relpath(os.path.join(parent, name), sys.argv[1]))
"""


@pytest.mark.parametrize("bound", ["disk", "limit"])
def test_a_write_that_fills_the_disk_leaves_nothing_and_says_so(tmp_path: Path, bound: str) -> None:
    """On a disk of one megabyte, mounted where only the child sees it; and under a limit to a file's size."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "output"), bound]
    if bound == "disk":
        mount = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
        command = ["unshare", "-rm", "sh", "-c", mount, str(tmp_path), *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if bound == "disk" and ("unshare:" in done.stderr or "mount:" in done.stderr):
        pytest.skip("this machine lets nobody mount")
    assert done.stderr == ""
    message, *files = done.stdout.splitlines()
    assert "Could not create" in message
    assert "Free some space or raise the quota; the same command then resumes" in message
    assert files == ["data/a"]


def test_a_disk_without_hard_links_needs_a_single_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: str, target: str) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), source, None, target)

    monkeypatch.setattr(os, "link", no_links)
    storage = Storage(str(tmp_path))
    assert storage.probe() is False
    with pytest.raises(StorageError, match="hard links"):
        storage.create("data/a", b"x")
    alone = storage.for_single_writer()
    assert (storage.exclusive, alone.exclusive) == (True, False)
    alone.create("data/a", b"x")
    with pytest.raises(AlreadyExistsError):
        alone.create("data/a", b"y")
    assert keys(alone) == ["data/a"]


def test_a_link_whose_answer_was_lost_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def repeated(source: str, target: str) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", repeated)
    Storage(str(tmp_path)).create("data/a", b"x")


@pytest.mark.parametrize("single_writer", [False, True])
def test_a_data_folder_on_another_mount_takes_files_in_one_step_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single_writer: bool
) -> None:
    """As the kernel does it, also between two mounts of one file system: EXDEV from link and rename."""
    mount = tmp_path / "data"

    def between_mounts(call: Callable[[str, str], None], source: str, target: str) -> None:
        if (mount in Path(source).parents) != (mount in Path(target).parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)
        call(source, target)

    monkeypatch.setattr(os, "link", functools.partial(between_mounts, os.link))
    monkeypatch.setattr(os, "replace", functools.partial(between_mounts, os.replace))
    storage = Storage(str(tmp_path))
    assert storage.probe() is True
    if single_writer:
        storage = storage.for_single_writer()
    storage.create("data/a", b"x")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/a", b"y")
    storage.replace("data/b", b"z")
    assert keys(storage) == ["data/a", "data/b"]
    (mount / ".tmp" / "elsewhere.1-abc").write_bytes(b"left by a dead writer on another host")
    os.utime(mount / ".tmp" / "elsewhere.1-abc", (0, 0))
    assert (storage.remove_leftovers(), keys(storage)) == (1, ["data/a", "data/b"])


@pytest.mark.parametrize("call", ["create", "replace"])
def test_an_immutable_folder_is_reported_in_the_words_of_the_system(tmp_path: Path, call: str) -> None:
    storage = Storage(str(tmp_path), denied_seconds=0)
    storage.create("data/a", b"x")
    if subprocess.run(["chattr", "+i", str(tmp_path / "data")], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a folder immutable")
    try:
        with pytest.raises(StorageError, match=r"Operation not permitted.*may be immutable") as error:
            getattr(storage, call)("data/b", b"x")
        assert "hard link" not in str(error.value)
        with pytest.raises(PreflightError, match=r"Operation not permitted.*may be immutable"):
            Storage(str(tmp_path)).probe()
    finally:
        subprocess.run(["chattr", "-i", str(tmp_path / "data")], check=True)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS])
def test_a_disk_without_hard_links_is_called_so_whatever_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_links(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number), source, None, target)

    monkeypatch.setattr(os, "link", no_links)
    storage = Storage(str(tmp_path))
    assert storage.probe() is False
    with pytest.raises(StorageError, match=r"needs a file system with hard links.*output.single_writer"):
        storage.create("data/a", b"x")
