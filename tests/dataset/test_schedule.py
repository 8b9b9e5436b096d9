"""Which build a run works on: names, days, and records of both."""

import datetime
import json
from typing import Any

import pytest

from magpie_ray.config.schema import Config
from magpie_ray.dataset import schedule
from magpie_ray.errors import PreflightError
from tests.support.builds import config_of, memory_storage


@pytest.fixture
def parent() -> str:
    return memory_storage().url


def config_at(path: str, **output: Any) -> Config:
    return config_of(output={"path": path, **output})


def on_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls(2026, 11, day, 2, 0, tzinfo=tz)

    monkeypatch.setattr(schedule, "datetime", Clock)


def test_a_path_without_placeholders_is_one_build(parent: str) -> None:
    config, tick = schedule.resolve(config_at(f"{parent}/{{{{x}}}}"))
    assert (config.output.path, tick) == (f"{parent}/{{x}}", None)


def test_runs_of_a_day_come_to_one_build(parent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_at(f"{parent}/{{date}}")
    on_day(monkeypatch, 25)
    paths = [schedule.resolve(config)[0].output.path for _ in range(2)]
    on_day(monkeypatch, 26)
    paths.append(schedule.resolve(config)[0].output.path)
    assert paths == [f"{parent}/2026-11-{day}" for day in (25, 25, 26)]


def test_a_name_stands_for_the_same_build_on_another_day(
    parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_at(f"{parent}/{{date}}-{{build_id}}/x", build_id="tick-7")
    on_day(monkeypatch, 25)
    first = schedule.resolve(config)
    on_day(monkeypatch, 26)
    assert schedule.resolve(config) == first
    assert first[0].output.path == f"{parent}/2026-11-25-tick-7/x"
    assert schedule.goes_on_with(config, first[1]) is None


def test_without_a_name_each_run_is_a_build_that_can_be_named(parent: str) -> None:
    config = config_at(f"{parent}/{{build_id}}")
    (one, tick), (other, _) = schedule.resolve(config), schedule.resolve(config)
    assert one.output.path != other.output.path
    again = schedule.goes_on_with(config, tick)
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
