"""Which build a run works on: names, days, records of both. Which complete build is the newest."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from magpie_ray.config.output_path import Tick
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record, layout, manifest, schedule
from magpie_ray.errors import CorruptBuildError, PreflightError
from magpie_ray.storage.storage import Storage
from tests.support.builds import build_of, config_of, memory_storage


@pytest.fixture
def parent() -> str:
    return memory_storage().url


def config_at(path: str, **output: Any) -> Config:
    return config_of(output={"path": path, **output})


def on_day(day: int) -> Callable[[], str]:
    """A clock of that day."""
    return lambda: f"2026-11-{day}T02:00:00+00:00"


def test_a_path_without_placeholders_is_one_build(parent: str) -> None:
    config, tick = schedule.resolve(config_at(f"{parent}/{{{{x}}}}"))
    assert (config.output.path, tick) == (f"{parent}/{{x}}", None)


def test_runs_of_a_day_come_to_one_build(parent: str) -> None:
    config = config_at(f"{parent}/{{date}}")
    paths = [schedule.resolve(config, clock=on_day(day))[0].output.path for day in (25, 25, 26)]
    assert paths == [f"{parent}/2026-11-{day}" for day in (25, 25, 26)]


def test_a_name_stands_for_the_same_build_on_another_day(parent: str) -> None:
    config = config_at(f"{parent}/{{date}}-{{build_id}}/x", build_id="tick-7")
    first = schedule.resolve(config, clock=on_day(25))
    assert schedule.resolve(config, clock=on_day(26)) == first
    assert first[0].output.path == f"{parent}/2026-11-25-tick-7/x"
    assert schedule.resume_override(config, first[1]) is None


def test_without_a_name_each_run_is_a_build_that_can_be_named(parent: str) -> None:
    config = config_at(f"{parent}/{{build_id}}")
    (one, tick), (other, _) = schedule.resolve(config), schedule.resolve(config)
    assert one.output.path != other.output.path
    again = schedule.resume_override(config, tick)
    assert again is not None
    named = config_at(f"{parent}/{{build_id}}", build_id=again.removeprefix("output.build_id="))
    assert schedule.resolve(named) == (
        named.model_copy(update={"output": named.output.model_copy(update={"path": one.output.path})}),
        tick,
    )


def test_a_plan_writes_nothing(parent: str) -> None:
    storage = memory_storage()
    config = config_at(f"{storage.url}/{{date}}", build_id="tick-7")
    _, tick = schedule.resolve(config, claim=False)
    assert tick is not None
    assert storage.list_objects("") == []
    claimed = schedule.resolve(config)
    assert schedule.resolve(config, claim=False) == claimed


def test_a_name_can_not_stand_for_two_paths() -> None:
    parent = memory_storage().url
    schedule.resolve(config_at(f"{parent}/{{date}}", build_id="tick-7"))
    with pytest.raises(PreflightError, match=r"tick-7.*has stood for memory://.* since .*another name"):
        schedule.resolve(config_at(f"{parent}/{{datetime}}", build_id="tick-7"))


@pytest.mark.parametrize("content", [b"{}", b"no json", json.dumps({"template": "x"}).encode()])
def test_a_record_that_is_none_is_refused(content: bytes) -> None:
    storage = memory_storage()
    storage.create("_magpie/builds/latest/tick-7.json", content)
    with pytest.raises(PreflightError, match=r"tick-7"):
        schedule.resolve(config_at(f"{storage.url}/{{date}}", build_id="tick-7"))


# ---- the newest complete build


def made(parent: str, day: int, *, complete: bool = True, rest: str = "") -> Storage:
    """A build of that day."""
    tick = Tick(template=f"{parent}/{{date}}{rest}", time=f"2026-11-{day}T02:00:00+00:00", build_id=f"t{day}")
    storage = Storage(tick.path)
    build_record.open_build(storage, replace(build_of(), tick=tick))
    if complete:
        manifest.mark_complete(storage)
    return storage


def pointer(parent: str, name: str = "latest") -> str:
    return str(json.loads(Storage(parent).read(f"{name}.json"))["path"])


def test_files_of_other_programs_beside_the_finished_builds_are_passed_over() -> None:
    parent = memory_storage().url
    for name in (".DS_Store", "~backup", "z.json.tmp"):
        Storage(parent).create(f"_magpie/finished/latest/{name}", b"?")
    config = config_at(f"{parent}/{{date}}")
    schedule.update_latest(config, made(parent, 10))
    assert pointer(parent) == f"{parent}/2026-11-10"


def test_a_build_that_a_lagging_listing_lacks_is_the_newest_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parent = memory_storage().url
    schedule.update_latest(config_of(), made(parent, 10))
    listed = Storage(parent).list_objects("_magpie/finished/latest")
    for day, lagging in ((11, listed), (12, [])):
        storage = made(parent, day)
        monkeypatch.setattr(Storage, "list_objects", lambda *_, lagging=lagging: lagging)
        schedule.update_latest(config_of(), storage)
        monkeypatch.undo()
        assert pointer(parent) == storage.url


@pytest.mark.parametrize("days", list(permutations([10, 11, 12])))
def test_it_is_the_newest_in_whatever_order_builds_end(days: tuple[int, ...]) -> None:
    parent = memory_storage().url
    for ended, day in enumerate(days, start=1):
        schedule.update_latest(config_of(), made(parent, day))
        assert pointer(parent) == f"{parent}/2026-11-{max(days[:ended])}"


def test_an_older_build_that_writes_late_is_corrected(monkeypatch: pytest.MonkeyPatch) -> None:
    parent = memory_storage().url
    older, newer = made(parent, 10), made(parent, 11)
    plain_replace = Storage.replace

    def overtaken(storage: Storage, key: str, data: bytes) -> None:
        """Between the older one's look and its write, the newer one ends."""
        monkeypatch.setattr(Storage, "replace", plain_replace)
        schedule.update_latest(config_of(), newer)
        plain_replace(storage, key, data)

    monkeypatch.setattr(Storage, "replace", overtaken)
    schedule.update_latest(config_of(), older)
    assert pointer(parent) == newer.url


def test_a_build_that_is_not_complete_or_not_one_of_several_has_none() -> None:
    parent = memory_storage().url
    schedule.update_latest(config_of(), made(parent, 10, complete=False))
    alone = Storage(f"{parent}/alone")
    build_record.open_build(alone, build_of())
    manifest.mark_complete(alone)
    schedule.update_latest(config_of(), alone)
    assert not Storage(parent).exists("latest.json")


def test_a_copy_of_a_build_leaves_it_alone() -> None:
    parent, elsewhere = memory_storage().url, memory_storage()
    original = made(parent, 10)
    for key in (layout.BUILD_KEY, layout.SUCCESS_KEY):
        elsewhere.create(key, original.read(key))
    schedule.update_latest(config_of(), elsewhere)
    assert not Storage(parent).exists("latest.json")


def test_it_is_followed_and_other_places_are_taken_as_they_are() -> None:
    parent = memory_storage().url
    storage = made(parent, 10, rest="/llama")
    schedule.update_latest(config_of(), storage)
    assert schedule.follow_latest(f"{parent}/latest/llama", {}, retry_seconds=1) == storage.url
    assert schedule.follow_latest(f"{parent}/latest/llama/", {}, retry_seconds=1) == storage.url
    for url in (storage.url, f"{parent}/latest/qwen", "s3://latest-bucket", "latest", "/x/latest"):
        assert schedule.follow_latest(url, {}, retry_seconds=1) == url


def test_a_pointer_that_is_none_is_named() -> None:
    storage = memory_storage()
    storage.create("latest.json", b'{"path": 3}')
    with pytest.raises(CorruptBuildError, match=r"latest\.json is damaged or foreign \(path"):
        schedule.follow_latest(f"{storage.url}/latest", {}, retry_seconds=1)


def test_on_a_disk_there_is_a_link_too(tmp_path: Path) -> None:
    for day in (10, 11):
        schedule.update_latest(config_of(), made(str(tmp_path), day, rest="/llama"))
    assert (tmp_path / "latest/llama").resolve() == tmp_path / "2026-11-11/llama"
    assert (tmp_path / "latest/llama/_SUCCESS").exists()
    assert sorted(path.name for path in (tmp_path / "latest").iterdir()) == ["llama", "llama.json"]


def test_a_folder_in_the_way_of_the_link_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "latest").mkdir()
    schedule.update_latest(config_of(), made(str(tmp_path), 10))
    assert pointer(str(tmp_path)) == str(tmp_path / "2026-11-10")
    assert (tmp_path / "latest").is_dir()
    assert "is no link, so it stays" in caplog.text
