"""The same promises on a local disk, in memory and over HTTP to a real S3, and what breaks without harm."""

import contextlib
import errno
import fcntl
import functools
import logging
import multiprocessing
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal

import botocore.exceptions
import botocore.session
import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st
from s3fs.errors import translate_boto_error

from magpie_ray.errors import AlreadyExistsError, MagpieError, PreflightError, StorageError
from magpie_ray.storage import remote
from magpie_ray.storage import storage as storage_module
from magpie_ray.storage.failures import is_transient
from magpie_ray.storage.remote import RemoteStore
from magpie_ray.storage.storage import ObjectNotFoundError, Storage, StoredObject
from tests.support.s3_server import FaultProxy, S3Server, running_s3_server

PLACES = ["local", "memory", "s3"]
PART = 64 * 2**10


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """A server that takes small parts, and clients that parse S3's description once and not each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("S3_UPLOAD_PART_MIN_SIZE", str(PART))
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        with running_s3_server() as server:
            yield server


@pytest.fixture(params=PLACES)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage(str(tmp_path / "output"))
    if request.param == "memory":
        return Storage(f"memory://{uuid.uuid4().hex}")
    return on_s3(request.getfixturevalue("s3"))


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(storage_module, "MAX_WAIT_SECONDS", 0.02)
    with FaultProxy(s3) as proxy:
        yield proxy


def on_s3(server: S3Server, **kwargs: float) -> Storage:
    return Storage(f"s3://{server.bucket}/{uuid.uuid4().hex}", server.storage_options, **kwargs)


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


# ---- what holds everywhere


def test_what_was_created_is_read_back_and_listed(storage: Storage) -> None:
    storage.create("data/b.parquet", b"12345")
    storage.create("data/a.parquet", b"")
    storage.create("_magpie/runs/000001.json", b"{}")
    assert storage.read("data/b.parquet") == b"12345"
    assert storage.list_objects("data") == [
        StoredObject(key="data/a.parquet", size=0),
        StoredObject(key="data/b.parquet", size=5),
    ]
    assert keys(storage) == ["_magpie/runs/000001.json", "data/a.parquet", "data/b.parquet"]
    assert keys(storage, "_magpie") == keys(storage, "_magpie/runs/") == ["_magpie/runs/000001.json"]
    assert keys(storage, "dat") == keys(storage, "missing/deeper") == []


def test_a_listing_says_when_an_object_was_written(storage: Storage) -> None:
    before = time.time()
    storage.create("data/a.parquet", b"12345")
    [listed] = storage.list_objects("data")
    assert listed.modified is not None
    assert before - 2 < listed.modified < time.time() + 2  # some stores keep whole seconds


@pytest.mark.parametrize(
    ("info", "modified"),
    [
        ({"LastModified": datetime(2026, 1, 1, tzinfo=UTC)}, 1767225600),
        ({"last_modified": datetime(2026, 1, 1)}, 1767225600),
        ({"updated": "2026-01-01T00:00:00.000Z"}, 1767225600),
        ({"mtime": 1767225600.5}, 1767225600.5),
        ({"mtime": "yesterday"}, None),
        ({}, None),
    ],
)
def test_the_time_of_a_write_is_read_as_file_systems_tell_it(
    info: dict[str, object], modified: float | None
) -> None:
    assert remote._modified(info) == modified


def test_a_second_creation_is_refused_and_changes_nothing(storage: Storage) -> None:
    storage.create("data/a", b"first")
    with pytest.raises(AlreadyExistsError, match="data/a exists already"):
        storage.create("data/a", b"second")
    assert storage.read("data/a") == b"first"


def test_one_of_eight_racing_writers_wins(storage: Storage) -> None:
    for race in range(1 if "s3:" in storage.url else 5):  # a round of S3 is slow, and one server decides
        key = f"data/{race}"
        won = winners(8, lambda writer, key=key: storage.create(key, f"writer {writer}".encode()))
        assert len(won) == 1
        assert storage.read(key) == f"writer {won[0]}".encode()


def test_one_of_four_racing_clients_wins_on_s3(s3: S3Server) -> None:
    url = on_s3(s3).url
    clients = [Storage(url, s3.storage_options) for _ in range(4)]
    won = winners(4, lambda writer: clients[writer].create("data/a", str(writer).encode()))
    assert [str(writer).encode() for writer in won] == [Storage(url, s3.storage_options).read("data/a")]


def test_replace_overwrites(storage: Storage) -> None:
    for data in (b"a long first checkpoint", b"short", b""):
        storage.replace("_magpie/manifest.json", data)
        assert storage.read("_magpie/manifest.json") == data


def test_a_listing_shows_what_others_wrote_since_the_last_one(storage: Storage) -> None:
    other = pickle.loads(pickle.dumps(storage))
    for count in range(3):
        assert len(storage.list_objects("data")) == count
        other.create(f"data/{count}", b"x")
        assert storage.exists(f"data/{count}")
    other.delete("data/1")
    assert keys(storage, "data") == ["data/0", "data/2"]


def test_the_tail_is_cut_from_the_end(storage: Storage) -> None:
    storage.create("data/a", b"0123456789")
    storage.create("data/empty", b"")
    assert storage.read_tail("data/a", 3) == b"789"
    assert storage.read_tail("data/a", 10) == storage.read_tail("data/a", 99) == b"0123456789"
    assert storage.read_tail("data/empty", 8) == b""
    with pytest.raises(ValueError, match="must be positive"):
        storage.read_tail("data/a", 0)


def test_a_missing_object_is_named(storage: Storage) -> None:
    for read in (storage.read, lambda key: storage.read_tail(key, 8)):
        with pytest.raises(ObjectNotFoundError, match=r"There is no .*/data/missing"):
            read("data/missing")
    assert not storage.exists("data/missing")


def test_a_directory_is_no_object(storage: Storage) -> None:
    storage.create("data/a", b"x")
    assert storage.exists("data/a")
    assert not storage.exists("data")


def test_deleting_twice_is_fine(storage: Storage) -> None:
    storage.create("data/a", b"x")
    storage.delete("data/a")
    storage.delete("data/a")
    assert not storage.exists("data/a")
    storage.create("data/a", b"again")


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../a", "data/../../a", "data//a", "data/", "./a"])
def test_keys_that_leave_the_output_are_refused(tmp_path: Path, key: str) -> None:
    storage = Storage(str(tmp_path / "output"))
    with pytest.raises(ValueError, match="a key is a relative path"):
        storage.create(key, b"x")
    assert list(tmp_path.iterdir()) == []


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["create", "replace", "delete", "tail"]),
        st.sampled_from(["a", "data/a", "data/b", "_magpie/runs/1"]),
        st.binary(max_size=6),
    ),
    max_size=25,
)


@pytest.mark.parametrize("place", ["local", "memory"])
@settings(max_examples=25, deadline=None)
@given(operations=OPERATIONS)
def test_any_sequence_of_operations_acts_like_a_dict(
    place: str, operations: list[tuple[str, str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        storage = Storage(directory if place == "local" else f"memory://{uuid.uuid4().hex}")
        expected: dict[str, bytes] = {}
        for verb, key, data in operations:
            if verb == "create" and expected.get(key, data) != data:
                with pytest.raises(AlreadyExistsError):
                    storage.create(key, data)
            elif verb == "create":
                with contextlib.suppress(AlreadyExistsError):  # equal bytes: either answer is right
                    storage.create(key, data)
                expected[key] = data
            elif verb == "replace":
                storage.replace(key, data)
                expected[key] = data
            elif verb == "delete":
                storage.delete(key)
                expected.pop(key, None)
            elif key in expected:
                assert storage.read_tail(key, len(data) + 1) == expected[key][-len(data) - 1 :]
            sizes = [StoredObject(key=key, size=len(expected[key])) for key in sorted(expected)]
            assert storage.list_objects("") == sizes
        assert {key: storage.read(key) for key in expected} == expected


# ---- processes


def test_it_works_in_another_process_after_pickling(s3: S3Server) -> None:
    storage = on_s3(s3)
    storage.create("data/a", b"from here")
    child = (
        "import pickle, sys; s = pickle.load(sys.stdin.buffer); print(s.read('data/a')); s.create('b', b'1')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", child],
        check=False,
        input=pickle.dumps(storage),
        capture_output=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (b"b'from here'", b"")
    assert storage.read("b") == b"1"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_opens_its_own_connection(s3: S3Server) -> None:
    storage = on_s3(s3)
    storage.create("data/a", b"x")
    child = multiprocessing.get_context("fork").Process(target=lambda: storage.create("data/b", b"y"))
    child.start()
    child.join(timeout=60)
    assert child.exitcode == 0
    assert storage.read("data/b") == b"y"


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
    storage, taken = Storage(str(tmp_path)), list[int]()
    monkeypatch.setattr(storage_module, "MAX_WAIT_SECONDS", 0.01)
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


# ---- the local disk


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    storage = Storage(str(tmp_path))
    storage.create("data/a", b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="Free some space"):
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


def test_paths_become_absolute_and_the_home_directory_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for url in ("~/out", "out", "./x/../out/", f"file://{tmp_path}/out"):
        storage = Storage(url)
        assert (storage.url, repr(storage)) == (f"{tmp_path}/out", f"Storage('{tmp_path}/out')")
        assert storage.display("data/a") == f"{tmp_path}/out/data/a"


# ---- the probe


def test_the_probe_finds_exclusive_creation_and_leaves_nothing(storage: Storage) -> None:
    assert storage.probe() is True
    assert keys(storage) == []


class IgnoresTheCondition(MemoryFileSystem):
    """A store that takes the condition and does not heed it."""

    protocol = "ignoring"

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.removeprefix("ignoring://").removeprefix("refusing://"))

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        super().pipe_file(path, value)


class RefusesTheCondition(IgnoresTheCondition):
    """A store that does not know the condition."""

    protocol = "refusing"

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        if kwargs:
            raise NotImplementedError("conditional writes")
        super().pipe_file(path, value)


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_s3_without_conditional_writes_serves_a_single_writer(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, conditions: Literal["ignored", "refused"]
) -> None:
    monkeypatch.setattr(storage_module, "MAX_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(remote, "PART_BYTES", PART)
    with FaultProxy(s3, conditions=conditions) as proxy:
        storage = on_s3(proxy.server)
        assert (storage.probe(), keys(storage)) == (False, [])
        alone = pickle.loads(pickle.dumps(storage.for_single_writer())).retrying_for(60)
        for data in (b"mine", b"m" * BIG):
            key = f"data/{len(data)}"
            whole = len(data) < BIG
            proxy.spoil("PUT" if whole else "POST", "lost_reply", part="" if whole else "uploadId")
            alone.create(key, data)
            assert (proxy.unused, alone.read(key)) == (0, data)
            with pytest.raises(AlreadyExistsError):
                alone.create(key, b"theirs" * len(data))
            assert alone.read(key) == data


@pytest.mark.parametrize("store", [IgnoresTheCondition, RefusesTheCondition])
def test_the_probe_finds_a_store_without_exclusive_creation(store: type[IgnoresTheCondition]) -> None:
    fsspec.register_implementation(store.protocol, store, clobber=True)
    url = f"{store.protocol}://{uuid.uuid4().hex}"
    assert Storage(url).probe() is False
    alone = Storage(url).for_single_writer()
    alone.create("data/a", b"x")
    with pytest.raises(AlreadyExistsError):
        alone.create("data/a", b"y")
    assert keys(alone) == ["data/a"]


def test_a_probe_that_was_killed_is_cleaned_up_by_a_later_run(storage: Storage) -> None:
    fresh, old = f"_magpie/probe-{time.time():.0f}-abc", "_magpie/probe-1700000000-abc"
    for key in (fresh, old, "_magpie/probe-notes"):
        storage.create(key, b"first")
    assert storage.remove_leftovers() == 1
    assert keys(storage) == [fresh, "_magpie/probe-notes"]


def test_the_probe_names_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("a file")
    with pytest.raises(PreflightError, match=r"output can't be used.*a directory this user may write to"):
        Storage(str(tmp_path / "output")).probe()


def test_a_missing_bucket_is_an_error_and_not_an_empty_output(s3: S3Server) -> None:
    storage = Storage("s3://missing-bucket/x", s3.storage_options)
    for action in (
        storage.probe,
        lambda: storage.list_objects("data"),
        lambda: storage.exists("a"),
        lambda: storage.read("a"),
        lambda: storage.create("a", b"x"),
    ):
        with pytest.raises(MagpieError, match=r"s3://missing-bucket/x.*Create the bucket") as caught:
            action()
        assert not isinstance(caught.value, ObjectNotFoundError)


def test_the_probe_asks_for_credentials(
    s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(PreflightError, match="Give credentials"):
        Storage(f"s3://{s3.bucket}/x", {"endpoint_url": s3.endpoint_url}).probe()


def test_the_endpoint_and_the_credentials_may_come_from_the_environment(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    assert Storage(f"s3://{s3.bucket}/{uuid.uuid4().hex}").probe() is True


# ---- URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "names no place"),
        ("s3://", "names no place"),
        ("s4://bucket/x", "unknown scheme 's4'.*s3://"),
        ("s3:/bucket/x", "lacks '//'"),
        ("dropbox://x", r"Nothing is installed that opens dropbox://"),
        ("simplecache::s3://bucket/x", "unknown scheme|must be plain"),
        ("s3://bucket/x?versionId=1", "must be plain"),
        ("s3://user:hunter2@bucket/x", "holds a password"),
    ],
)
def test_urls_that_can_not_work_are_refused_at_once(url: str, message: str) -> None:
    with pytest.raises(PreflightError, match=message) as caught:
        Storage(url)
    assert "hunter2" not in str(caught.value)


# ---- S3 under faults


def test_a_put_whose_answer_is_lost_succeeds(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "lost_reply", "lost_reply")
    storage.create("data/a", b"mine")
    assert (proxy.unused, storage.read("data/a")) == (0, b"mine")


def test_an_object_that_came_between_two_tries_is_not_taken_for_ours(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    Storage(storage.url, proxy.server.storage_options).create("data/a", b"them")
    proxy.spoil("PUT", "reset")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/a", b"mine")
    assert storage.read("data/a") == b"them"


@pytest.mark.parametrize("fault", ["reset", "503 SlowDown"])
def test_failures_that_pass_are_retried(
    proxy: FaultProxy, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", fault, fault)
    storage.create("data/a", b"x" * 1000)
    proxy.spoil("GET", fault)
    assert storage.read("data/a") == b"x" * 1000
    proxy.spoil("GET", fault)
    assert keys(storage) == ["data/a"]
    proxy.spoil("DELETE", fault)
    storage.delete("data/a")
    assert proxy.unused == 0
    assert "trying again in" in caplog.text
    assert storage.retries == caplog.text.count("trying again in")


@pytest.mark.parametrize(
    ("status", "code", "passes"),
    [
        (400, "RequestTimeout", True),
        (400, "Throttling", True),
        (403, "RequestTimeTooSkewed", True),
        (409, "OperationAborted", True),
        (409, "ConditionalRequestConflict", True),
        (429, "TooManyRequests", True),
        (500, "InternalError", True),
        (503, "ServiceUnavailable", True),
        (501, "NotImplemented", False),
        (507, "XMinioStorageFull", False),
        (400, "ExpiredToken", False),
        (403, "InvalidAccessKeyId", False),
        (403, "AccessDenied", False),
        (403, "SignatureDoesNotMatch", False),
        (404, "NoSuchBucket", False),
        (412, "PreconditionFailed", False),
    ],
)
def test_which_answers_of_a_store_pass(status: int, code: str, passes: bool) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    raised = botocore.exceptions.ClientError(answer, "PutObject")
    assert is_transient(translate_boto_error(raised)) is passes


REFUSALS = [
    ("400 ExpiredToken", "have expired: renew them; the same command then resumes"),
    ("403 InvalidAccessKeyId", "renew them; the same command then resumes"),
    ("403 SignatureDoesNotMatch", "renew them; the same command then resumes"),
    ("403 QuotaExceeded", "Free some space or raise the quota; the same command then resumes"),
    ("507 XMinioStorageFull", "Free some space or raise the quota; the same command then resumes"),
    ("404 NoSuchBucket", "Create the bucket"),
]


@pytest.mark.parametrize(("fault", "remedy"), REFUSALS)
def test_what_does_not_pass_is_told_at_once_with_its_code_and_what_to_do(
    proxy: FaultProxy, fault: str, remedy: str
) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x")
    proxy.storm(1.0, [fault], seed=0)
    actions = {
        "create": lambda: storage.create("data/b", b"y"),
        "read": lambda: storage.read("data/a"),
        "look for": lambda: storage.exists("data/a"),  # by a HEAD, whose answer has no room for the code
        "list": lambda: storage.list_objects("data"),
    }
    for verb, action in actions.items():
        told_at_once = f"Could not {verb} s3://.*{fault.split()[1]}.*{remedy}"
        with pytest.raises(StorageError, match=told_at_once) as told:
            action()
        assert "tried for" not in str(told.value)
    proxy.calm()
    storage.create("data/b", b"y")


def test_a_bucket_that_is_deleted_in_the_middle_is_told_at_once(s3: S3Server) -> None:
    with contextlib.closing(s3.client()) as client:
        client.create_bucket(Bucket="short-lived")
        storage = Storage("s3://short-lived/x", s3.storage_options)
        assert storage.probe()
        client.delete_bucket(Bucket="short-lived")
    with pytest.raises(StorageError, match=r"NoSuchBucket.*Create the bucket") as told:
        storage.create("data/a", b"x")
    assert "tried for" not in str(told.value)


def test_a_clock_that_is_set_right_meanwhile_loses_nothing(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    skewed = "403 RequestTimeTooSkewed"
    proxy.spoil("PUT", skewed)
    proxy.spoil("HEAD", skewed)
    proxy.spoil("GET", skewed, part="data/a")
    storage.create("data/a", b"x")
    assert (proxy.unused, storage.read("data/a")) == (0, b"x")
    proxy.storm(1.0, [skewed], seed=0)
    with pytest.raises(StorageError, match=r"tried for up to.*Set the clock of this machine right"):
        storage.retrying_for(0.2).create("data/b", b"x")


def test_an_endpoint_that_refuses_connections_is_tried_again(s3: S3Server) -> None:
    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        options = s3.storage_options | {"endpoint_url": f"http://127.0.0.1:{taken.getsockname()[1]}"}
        down = Storage(f"s3://{s3.bucket}/x", options, retry_seconds=0.1)
        with pytest.raises(StorageError, match=r"Could not connect.*tried for up to.*once the store answers"):
            down.create("data/a", b"x")


def test_an_answer_that_never_comes_is_given_up_and_asked_for_again(proxy: FaultProxy) -> None:
    options = proxy.server.storage_options | {"config_kwargs": {"read_timeout": 0.3}}
    storage = Storage(f"s3://{proxy.server.bucket}/{uuid.uuid4().hex}", options)
    proxy.spoil("PUT", "stall")
    storage.create("data/a", b"x")
    proxy.spoil("GET", "stall")
    assert (storage.read("data/a"), proxy.injected) == (b"x", {"stall": 2})


def test_an_outage_is_sat_out_and_its_faults_are_counted(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.outage()
    with ThreadPoolExecutor(1) as pool:
        creation = pool.submit(storage.create, "data/a", b"x")
        with contextlib.suppress(StorageError):
            storage.retrying_for(0.2).read("data/a")
        assert not creation.done()
        proxy.calm()
        creation.result(timeout=60)
    assert storage.read("data/a") == b"x"
    assert proxy.injected.keys() == {"503 ServiceUnavailable"}


def test_a_storm_costs_no_object_and_the_same_seed_spoils_the_same_requests(s3: S3Server) -> None:
    injected = []
    for _ in range(2):
        with FaultProxy(s3) as proxy, pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage_module, "MAX_WAIT_SECONDS", 0.02)
            storage = on_s3(proxy.server)
            faults = ["503 SlowDown", "500 InternalError", "reset", "409 ConditionalRequestConflict"]
            proxy.storm(0.5, faults, seed=1, method="PUT")
            for i in range(6):
                storage.create(f"data/{i}", b"%d" % i)
            proxy.calm()
            assert [storage.read(key) for key in keys(storage, "data")] == [b"%d" % i for i in range(6)]
            injected.append(proxy.injected)
    assert injected[0] == injected[1]
    assert injected[0].keys() == set(faults)


def test_a_body_that_is_cut_is_read_again(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x" * 10_000)
    proxy.spoil("GET", "cut_body", "cut_body")
    assert storage.read_tail("data/a", 8_000) == b"x" * 8_000
    assert proxy.unused == 0


def test_retries_end_and_the_message_says_what_to_do(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server, retry_seconds=0.2)
    proxy.spoil("PUT", *["503 SlowDown"] * 1000)
    with pytest.raises(StorageError, match=r"tried for up to 0 s.*the same command resumes"):
        storage.create("data/a", b"x")


def test_refused_credentials_are_not_retried(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "403 AccessDenied")
    with pytest.raises(StorageError, match=r"Could not create s3://.*Check that the credentials"):
        storage.create("data/a", b"x")
    assert [request.split()[0] for request in proxy.requests] == ["PUT"]
    assert not storage.exists("data/a")


def test_a_store_that_answers_412_without_the_name_of_the_condition_is_understood(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "412 PreconditionFailed")
    with pytest.raises(AlreadyExistsError):
        storage.create("data/a", b"x")


def test_reading_takes_one_request(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    storage.create("data/a", b"x" * 10_000)
    for read in (storage.read, lambda key: storage.read_tail(key, 100)):
        before = len(proxy.requests)
        read("data/a")
        assert [request.split()[0] for request in proxy.requests[before:]] == ["GET"]


# ---- uploads in parts

BIG = 2 * PART + 1  # three parts


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PART_BYTES", PART)


def open_uploads(server: S3Server, storage: Storage) -> int:
    with contextlib.closing(server.client()) as client:
        prefix = storage.url.partition(server.bucket + "/")[2]
        answer = client.list_multipart_uploads(Bucket=server.bucket, Prefix=prefix)
        return len(answer.get("Uploads", []))


@pytest.mark.usefixtures("small_parts")
def test_an_upload_in_parts_is_exclusive_too(s3: S3Server) -> None:
    storage = on_s3(s3)
    won = winners(3, lambda writer: storage.create("data/big", bytes([writer]) * BIG))
    assert len(won) == 1
    with pytest.raises(AlreadyExistsError):
        storage.create("data/big", b"z" * BIG)
    assert storage.read("data/big") == bytes([won[0]]) * BIG
    assert open_uploads(s3, storage) == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("fault", ["lost_reply", "409 ConditionalRequestConflict"])
def test_an_upload_in_parts_survives_faults_at_its_end(proxy: FaultProxy, fault: str) -> None:
    storage = on_s3(proxy.server)
    data = os.urandom(BIG)
    proxy.spoil("POST", fault, part="uploadId")
    storage.create("data/big", data)
    assert proxy.unused == 0
    if fault == "lost_reply":  # what is there is found before it is sent again
        assert sum("partNumber" in request for request in proxy.requests) == 3
    assert storage.read("data/big") == data
    assert open_uploads(proxy.server, storage) == 0


def begin_upload(server: S3Server, storage: Storage, key: str) -> None:
    with contextlib.closing(server.client()) as client:
        client.create_multipart_upload(
            Bucket=server.bucket, Key=storage.display(key).partition(server.bucket + "/")[2]
        )


def test_an_upload_left_behind_goes_once_it_is_old_or_its_object_is_there(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = on_s3(s3)
    storage.create("data/there", b"x")
    for key in ("data/there", "data/there", "data/missing"):
        begin_upload(s3, storage, key)
    with monkeypatch.context() as patch:  # this server dates every upload to 2010
        patch.setattr(remote, "_LEFTOVER_SECONDS", 1e10)
        assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (2, 1)
        assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (0, 1)
    assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (1, 0)


def test_uploads_of_others_below_the_same_prefix_are_left_alone(s3: S3Server) -> None:
    storage = on_s3(s3)
    for key in ("another-build/data/a", "database/a"):
        begin_upload(s3, storage, key)
    assert (storage.remove_leftovers(), open_uploads(s3, storage)) == (0, 2)


def test_all_pages_of_uploads_are_looked_through(s3: S3Server) -> None:
    storage = on_s3(s3)
    for count in range(5):
        begin_upload(s3, storage, f"data/{count}")
    store = RemoteStore("s3", storage.url, s3.storage_options, exclusive=True)
    call = store._fs.call_s3

    def two_a_page(method: str, **asked: str) -> dict[str, object]:  # this server knows no pages
        after = (asked.pop("KeyMarker", ""), asked.pop("UploadIdMarker", ""))
        found = call(method, **asked).get("Uploads", [])
        left = sorted((u["Key"], u["UploadId"]) for u in found if (u["Key"], u["UploadId"]) > after)
        page = [upload for upload in found if (upload["Key"], upload["UploadId"]) in left[:2]]
        last = left[:2][-1] if left else ("", "")
        more = {"IsTruncated": len(left) > 2, "NextKeyMarker": last[0], "NextUploadIdMarker": last[1]}
        return {"Uploads": page, **more}

    store._fs.call_s3 = two_a_page
    assert (store.remove_leftovers(), open_uploads(s3, storage)) == (5, 0)


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_is_aborted_by_mistake_begins_again(proxy: FaultProxy) -> None:
    """A clock that jumped, or two runs that clean at once: the writer loses its upload, never its object."""
    storage = on_s3(proxy.server)
    data = os.urandom(BIG)
    proxy.spoil("PUT", "404 NoSuchUpload", part="partNumber=2")
    proxy.spoil("POST", "404 NoSuchUpload", part="uploadId")
    storage.create("data/big", data)
    assert (proxy.unused, storage.read("data/big")) == (0, data)


UPLOADER = """
import os, sys
from magpie_ray.storage import remote
from magpie_ray.storage import Storage

remote.PART_BYTES = int(sys.argv[2])
Storage(sys.argv[1]).create("data/big", os.urandom(3 * remote.PART_BYTES))
"""


def test_an_uploader_killed_between_its_parts_leaves_nothing_to_see_and_is_cleaned_up_after(
    proxy: FaultProxy,
) -> None:
    storage = on_s3(proxy.server)
    proxy.spoil("PUT", "stall", part="partNumber=2")
    command = [sys.executable, "-c", UPLOADER, storage.url, str(PART)]
    with subprocess.Popen(command, env=os.environ | proxy.server.env) as process:
        proxy.wait_for("stall")
        process.kill()
    proxy.calm()
    assert (keys(storage), open_uploads(proxy.server, storage)) == ([], 1)
    storage.create("data/big", b"by its replacement")
    assert (storage.remove_leftovers(), open_uploads(proxy.server, storage)) == (1, 0)


# ---- secrets


class Talkative(MemoryFileSystem):
    """A library that puts its password into its messages."""

    protocol = "talkative"

    def __init__(
        self, password: str = "", client_kwargs: dict[str, str] | None = None, **kwargs: object
    ) -> None:
        super().__init__(**kwargs)
        self.password, self.token = password, (client_kwargs or {}).get("token")

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        raise ConnectionError(f"login with {self.password} and {self.token} at {path} failed")


def test_no_secret_is_in_a_message_a_log_or_a_repr(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "MAX_WAIT_SECONDS", 0.01)
    fsspec.register_implementation("talkative", Talkative, clobber=True)
    caplog.set_level(logging.DEBUG, logger="magpie_ray")
    options = {"password": "hunter2-secret", "client_kwargs": {"token": "tok-4711"}}
    storage = Storage("talkative://place/x", options, retry_seconds=0.1)
    with pytest.raises(StorageError, match="login with \\*\\*\\* and \\*\\*\\*") as stored:
        storage.create("a", b"x")
    with pytest.raises(PreflightError) as refused:
        storage.probe()
    told = f"{stored.value} {refused.value} {storage!r} {storage} {storage.url} {caplog.text}"
    assert "trying again" in told
    assert "hunter2" not in told
    assert "4711" not in told


def test_the_size_of_an_object_is_told(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    storage.create("data/a", b"12345")
    assert storage.size("data/a") == 5
    with pytest.raises(ObjectNotFoundError, match=r"There is no .*data/b"):
        storage.size("data/b")


def test_the_time_of_s3_is_that_of_its_answers(s3: S3Server) -> None:
    storage = on_s3(s3)
    storage.create("data/a", b"x")
    [item] = storage.list_objects("data")
    now = storage.now()
    assert now == int(now), "HTTP tells whole seconds"
    assert item.modified is not None
    assert abs(now - item.modified) < 60


def test_elsewhere_the_time_is_that_of_this_machine(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"memory://{uuid.uuid4().hex}"):
        assert abs(Storage(url).now() - time.time()) < 60
