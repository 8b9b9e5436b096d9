"""What a machine has run out of, as errors and logs tell it."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from magpie_ray.errors import MachineLimitError
from magpie_ray.utils.limits import check_room, is_process_limit, limit_remedy, limits_told

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("OSError: [Errno 24] Too many open files: '/proc/self/maps'", "ulimit -n"),
        ("Cannot connect to host s3:443 ssl:default [Too many open files]", "ulimit -n"),
        ("OSError: [Errno 23] Too many open files in system", "fs.file-max"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("BlockingIOError: [Errno 11] Resource temporarily unavailable", "ulimit -u"),
        ("libgomp: Thread creation failed: Resource temporarily unavailable", "ulimit -u"),
        ("OpenBLAS blas_thread_init: pthread_create failed for thread 3 of 8", "ulimit -u"),
        ("what(): std::system_error, Resource temporarily unavailable", "ulimit -u"),
        ("/bin/sh: fork: retry: Resource temporarily unavailable", "ulimit -u"),
    ],
)
def test_a_limit_of_a_process_is_told_with_what_raises_it(text: str, remedy: str) -> None:
    assert remedy in limit_remedy(text)
    assert is_process_limit(f"INFO all is well\n{text}\nINFO more")


def test_a_full_disk_is_a_limit_of_another_kind() -> None:
    for text in ("[Errno 28] No space left on device: '/tmp/x'", "OSError: [Errno 122] Disk quota exceeded"):
        assert "TMPDIR" in limit_remedy(text)
        assert not is_process_limit(text)


@pytest.mark.parametrize(
    "text",
    [
        "ConnectionError: Connection refused",
        "[Errno 5] Input/output error",
        "BlockingIOError: [Errno 11] Resource temporarily unavailable: '/mnt/nfs/x'",
        "the hub is temporarily unavailable",
        "CUDA out of memory",
    ],
)
def test_other_failures_are_no_limit(text: str) -> None:
    assert limit_remedy(text) == ""


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device", "/tmp/ray/x"), RuntimeError("can't start new thread")],
)
def test_a_limit_is_one_line_in_place_of_a_traceback(error: Exception) -> None:
    with pytest.raises(MachineLimitError) as caught, limits_told():
        raise error
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{error}. ")
    assert caught.value.__cause__ is error


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(OSError, match="Input/output"), limits_told():
        raise OSError(5, "Input/output error")


def test_a_folder_without_room_is_refused_and_one_that_can_not_be_looked_at_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_room(str(tmp_path), nbytes=1)
    check_room(str(tmp_path / "not there yet"), nbytes=1 << 60)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 << 30, 100 << 30, 3 << 20))
    with pytest.raises(MachineLimitError, match=r"is full \(3 MiB are free\).* TMPDIR"):
        check_room(str(tmp_path), nbytes=64 << 20)
