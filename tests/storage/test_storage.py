"""The same promises on a local disk, in memory and over HTTP to a real S3; the probe and the retries."""

import contextlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.errors import AlreadyExistsError, MagpieError, PreflightError, StorageError
from magpie_ray.storage.storage import ObjectNotFoundError, Storage, StoredObject
from magpie_ray.utils.awake import AwakeClock
from tests.storage.places import keys, on_s3, winners
from tests.support.s3_server import FaultProxy, S3Server


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


def test_a_second_creation_is_refused_and_changes_nothing(storage: Storage) -> None:
    storage.create("data/a", b"first")
    with pytest.raises(AlreadyExistsError, match="data/a exists already"):
        storage.create("data/a", b"second")
    assert storage.read("data/a") == b"first"


def test_one_of_eight_racing_writers_wins(storage: Storage) -> None:
    for race in range(
        5 if "memory:" in storage.url else 1
    ):  # a round over HTTP is slow, and one server decides
        key = f"data/{race}"
        won = winners(8, lambda writer, key=key: storage.create(key, f"writer {writer}".encode()))
        assert len(won) == 1
        assert storage.read(key) == f"writer {won[0]}".encode()


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


def test_a_range_is_cut_from_the_middle(storage: Storage) -> None:
    storage.create("data/a", b"0123456789")
    assert storage.read_range("data/a", 3, 6) == b"345"
    assert storage.read_range("data/a", 0, 10) == b"0123456789"
    with pytest.raises(ValueError, match="0 <= start < stop"):
        storage.read_range("data/a", 3, 3)
    with pytest.raises(ObjectNotFoundError):
        storage.read_range("data/b", 0, 1)


def test_the_tail_is_cut_from_the_end(storage: Storage) -> None:
    storage.create("data/a", b"0123456789")
    storage.create("data/empty", b"")
    assert storage.read_tail("data/a", 3) == storage.read_tail("data/a", 3, size=10) == b"789"
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


def test_the_size_of_an_object_is_known(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "out"))
    storage.create("data/a", b"12345")
    assert storage.size("data/a") == 5
    with pytest.raises(ObjectNotFoundError, match=r"There is no .*data/b"):
        storage.size("data/b")


def test_elsewhere_the_time_is_that_of_this_machine(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"memory://{uuid.uuid4().hex}"):
        assert abs(Storage(url).now() - time.time()) < 60


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


# ---- the probe


def test_the_probe_finds_exclusive_creation_and_leaves_nothing(storage: Storage) -> None:
    assert storage.probe() is True
    assert keys(storage) == []


def test_a_probe_that_was_killed_is_cleaned_up_by_a_later_run(storage: Storage) -> None:
    now = f"{time.time():.0f}"
    kept = [f"_magpie/probe-{now}-abc", "_magpie/probe-notes", f"data/_probe-{now}-abc", "data/_probes"]
    for key in (*kept, "_magpie/probe-1700000000-abc", "data/_probe-1700000000-abc"):
        storage.create(key, b"first")
    assert storage.remove_leftovers() == 2
    assert keys(storage) == kept


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


# ---- retries


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
        with FaultProxy(s3) as proxy:
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


def test_retries_end_and_the_message_says_what_to_do(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server, retry_seconds=0.2)
    proxy.spoil("PUT", *["503 SlowDown"] * 1000)
    with pytest.raises(StorageError, match=r"tried for \d+ s.*the same command resumes"):
        storage.create("data/a", b"x")


def test_a_process_that_was_suspended_during_a_request_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As after a night with the lid closed: the request fails on waking, and only that time has passed."""
    now = [100.0]
    monkeypatch.setattr("magpie_ray.storage.retries.awake_seconds", AwakeClock(lambda: now[0]))
    attempts = []

    class Suspended(Storage):
        def read(self, key: str) -> bytes:
            return self._call("read", key, lambda _: self._attempt())

        def _attempt(self) -> bytes:
            attempts.append(now[0])
            if len(attempts) == 1:
                now[0] += 8 * 3600.0
                raise ConnectionResetError("connection reset by peer")
            return b"here"

    assert Suspended(str(tmp_path), retry_seconds=30.0, max_wait_seconds=0.01).read("key") == b"here"
    assert len(attempts) == 2
