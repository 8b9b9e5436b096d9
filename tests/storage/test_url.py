"""Which output URLs are valid, and what each refers to."""

from pathlib import Path

import pytest

from magpie_ray.errors import PreflightError
from magpie_ray.storage.storage import Storage


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


def test_paths_become_absolute_and_the_home_directory_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for url in ("~/out", "out", "./x/../out/", f"file://{tmp_path}/out"):
        storage = Storage(url)
        assert (storage.url, repr(storage)) == (f"{tmp_path}/out", f"Storage('{tmp_path}/out')")
        assert storage.display("data/a") == f"{tmp_path}/out/data/a"
