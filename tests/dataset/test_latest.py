"""The pointer to the newest complete build."""

import json
from dataclasses import asdict
from itertools import permutations
from pathlib import Path

import pytest

from magpie_ray.config.output_path import Tick
from magpie_ray.dataset import build_record, layout, manifest, schedule
from magpie_ray.errors import CorruptBuildError
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, config_of, memory_storage


def made(parent: str, day: int, *, complete: bool = True, rest: str = "") -> Storage:
    """A build of that day."""
    tick = Tick(template=f"{parent}/{{date}}{rest}", time=f"2026-11-{day}T02:00:00+00:00", build_id=f"t{day}")
    storage = Storage(tick.path)
    record = build_of()
    fields = {name: getattr(record, name) for name in record.__dataclass_fields__} | {"tick": asdict(tick)}
    build_record.open_build(storage, build_record.BuildRecord(**fields))
    if complete:
        manifest.mark_complete(storage)
    return storage


def pointer(parent: str, name: str = "latest") -> str:
    return str(json.loads(Storage(parent).read(f"{name}.json"))["path"])


@pytest.mark.parametrize("days", list(permutations([10, 11, 12])))
def test_it_is_the_newest_in_whatever_order_builds_end(days: tuple[int, ...]) -> None:
    parent = memory_storage().url
    for ended, day in enumerate(days, start=1):
        schedule.publish(config_of(), made(parent, day))
        assert pointer(parent) == f"{parent}/2026-11-{max(days[:ended])}"


def test_an_older_build_that_writes_late_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = memory_storage().url
    older, newer = made(parent, 10), made(parent, 11)
    replace = Storage.replace

    def overtaken(storage: Storage, key: str, data: bytes) -> None:
        """Between the older one's look and its write, the newer one ends."""
        monkeypatch.setattr(Storage, "replace", replace)
        schedule.publish(config_of(), newer)
        replace(storage, key, data)

    monkeypatch.setattr(Storage, "replace", overtaken)
    schedule.publish(config_of(), older)
    assert pointer(parent) == newer.url


def test_a_build_that_is_not_complete_or_not_one_of_several_has_none() -> None:
    parent = memory_storage().url
    schedule.publish(config_of(), made(parent, 10, complete=False))
    alone = Storage(f"{parent}/alone")
    build_record.open_build(alone, build_of())
    manifest.mark_complete(alone)
    schedule.publish(config_of(), alone)
    assert not Storage(parent).exists("latest.json")


def test_a_copy_of_a_build_leaves_it_alone() -> None:
    parent, elsewhere = memory_storage().url, memory_storage()
    original = made(parent, 10)
    for key in (layout.BUILD_KEY, manifest.SUCCESS_KEY):
        elsewhere.create(key, original.read(key))
    schedule.publish(config_of(), elsewhere)
    assert not Storage(parent).exists("latest.json")


def test_it_is_followed_and_other_places_are_taken_as_they_are() -> None:
    parent = memory_storage().url
    storage = made(parent, 10, rest="/llama")
    schedule.publish(config_of(), storage)
    assert schedule.follow(f"{parent}/latest/llama", {}, retry_seconds=1) == storage.url
    assert schedule.follow(f"{parent}/latest/llama/", {}, retry_seconds=1) == storage.url
    for url in (storage.url, f"{parent}/latest/qwen", "s3://latest-bucket", "latest", "/x/latest"):
        assert schedule.follow(url, {}, retry_seconds=1) == url


def test_a_pointer_that_is_none_is_named() -> None:
    storage = memory_storage()
    storage.create("latest.json", b'{"path": 3}')
    with pytest.raises(CorruptBuildError, match=r"latest\.json names no path"):
        schedule.follow(f"{storage.url}/latest", {}, retry_seconds=1)


def test_on_a_disk_there_is_a_link_too(tmp_path: Path) -> None:
    for day in (10, 11):
        schedule.publish(config_of(), made(str(tmp_path), day, rest="/llama"))
    assert (tmp_path / "latest/llama").resolve() == tmp_path / "2026-11-11/llama"
    assert (tmp_path / "latest/llama/_SUCCESS").exists()
    assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["llama", "llama.json"]


def test_a_folder_in_the_way_of_the_link_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "latest").mkdir()
    schedule.publish(config_of(), made(str(tmp_path), 10))
    assert pointer(str(tmp_path)) == str(tmp_path / "2026-11-10")
    assert (tmp_path / "latest").is_dir()
    assert "in the way" in caplog.text
