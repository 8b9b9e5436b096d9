"""The probe does what a job does, finds what a job would trip over, and is not misled by passing failures."""

import errno
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from magpie_ray.errors import PreflightError
from magpie_ray.storage.storage import Storage
from tests.storage.places import PART, keys, on_s3
from tests.support.s3_server import FaultProxy, S3Server


def test_the_probe_of_s3_takes_few_requests_and_leaves_nothing(proxy: FaultProxy) -> None:
    storage = on_s3(proxy.server)
    assert storage.probe() is True
    assert len(proxy.requests) <= 18
    puts = [request for request in proxy.requests if request.startswith("PUT")]
    assert sum("/data/_probe-" in put for put in puts) == sum("/_magpie/probe-" in put for put in puts) == 2
    assert keys(storage) == []


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EINTR, errno.EBUSY, errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("moment", ["before it has its name", "after it has its name"])
def test_a_passing_failure_of_a_disk_is_not_taken_for_a_lack_of_exclusion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, moment: str
) -> None:
    link, failures = os.link, [OSError(number, os.strerror(number))]

    def fails_once(source: str, target: str) -> None:
        if moment == "after it has its name":
            link(source, target)
        if failures and "probe-" in target:
            raise failures.pop()
        if moment == "before it has its name":
            link(source, target)

    monkeypatch.setattr(os, "link", fails_once)
    storage = Storage(str(tmp_path), max_wait_seconds=0.01)
    assert storage.probe() is True
    assert (failures, keys(storage)) == ([], [])


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EINTR])
def test_a_creation_that_fails_after_its_link_is_found_to_be_our_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    sync, failures = os.fsync, list[OSError]()

    def fails_once(descriptor: int) -> None:
        sync(descriptor)
        if failures and (tmp_path / "data" / "a").exists():
            raise failures.pop()

    monkeypatch.setattr(os, "fsync", fails_once)
    storage = Storage(str(tmp_path), max_wait_seconds=0.01)
    failures.append(OSError(number, os.strerror(number)))
    storage.create("data/a", b"x")
    assert (failures, storage.read("data/a")) == ([], b"x")


def test_a_store_that_looks_and_then_writes_is_found_by_two_creators(s3: S3Server) -> None:
    """S3's protocol in front of a server that looks first: both creators look before either writes."""
    with FaultProxy(s3, conditions="ignored") as proxy:
        storage = on_s3(proxy.server)
        assert (storage.probe(), keys(storage)) == (False, [])


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_s3_without_a_condition_on_completions_gets_no_parts(s3: S3Server, conditions: str) -> None:
    with FaultProxy(s3, conditions=conditions) as proxy:  # type: ignore[arg-type]
        storage = on_s3(proxy.server, part_bytes=PART)
        assert (storage.completes_exclusively(), keys(storage)) == (False, [])
        before = len(proxy.requests)
        storage.uploading_whole().for_single_writer().create("data/big", b"x" * (4 * PART))
        assert not [request for request in proxy.requests[before:] if "upload" in request.lower()]


def test_completions_of_s3_are_exclusive_and_leave_no_upload(s3: S3Server) -> None:
    storage = on_s3(s3)
    assert (storage.completes_exclusively(), keys(storage), storage.remove_leftovers()) == (True, [], 0)


def test_other_stores_get_no_parts(tmp_path: Path) -> None:
    assert Storage(str(tmp_path)).completes_exclusively()
    assert Storage(f"memory://{uuid.uuid4().hex}").completes_exclusively()


class NoRanges(MemoryFileSystem):
    """A server that answers a range with the whole object."""

    protocol = "memory"

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: object
    ) -> bytes:
        return bytes(super().cat_file(path))


@pytest.fixture
def memory_without_ranges() -> Iterator[None]:
    fsspec.register_implementation("memory", NoRanges, clobber=True)
    yield
    fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


@pytest.mark.usefixtures("memory_without_ranges")
def test_a_store_that_ignores_ranges_is_refused() -> None:
    with pytest.raises(PreflightError, match="does not heed ranges"):
        Storage(f"memory://{uuid.uuid4().hex}").probe()


def denied(path: str) -> Callable[[str, str], None]:
    link = os.link

    def refuse(source: str, target: str) -> None:
        if path in target:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source, None, target)
        link(source, target)

    return refuse


def test_a_data_folder_that_can_not_be_written_to_is_found_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", denied("/data/"))
    monkeypatch.setattr(os, "replace", denied("/data/"))
    with pytest.raises(PreflightError, match=r"Could not create .*/data/.*this user may write to"):
        Storage(str(tmp_path)).probe()
    assert keys(Storage(str(tmp_path))) == []


def test_a_key_that_is_denied_under_data_is_found_at_the_start(proxy: FaultProxy) -> None:
    proxy.spoil("PUT", *["403 AccessDenied"] * 4, part="/data/")
    with pytest.raises(PreflightError, match=r"Could not create s3://.*/data/.*Check that the credentials"):
        on_s3(proxy.server).probe()


def test_on_a_machine_too_busy_for_a_race_one_creator_comes_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def nobody_comes(barrier: threading.Barrier, timeout: float | None = None) -> int:
        raise threading.BrokenBarrierError

    monkeypatch.setattr(threading.Barrier, "wait", nobody_comes)
    assert Storage(str(tmp_path)).probe()
