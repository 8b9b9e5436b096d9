"""Builds for each tick, on real Ray with simulated engines: which a run works on, and what `latest` is."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from magpie_ray import generate, load_config
from magpie_ray.config.schema import Config
from magpie_ray.dataset import layout
from magpie_ray.dataset.build_record import read_build
from magpie_ray.dataset.reader import read_rows
from magpie_ray.dataset.run_records import read_runs
from magpie_ray.dataset.verify import verify
from magpie_ray.errors import BuildExistsError, RowExhaustedError
from magpie_ray.storage.storage import Storage
from tests.end_to_end.cluster import RayCluster, connected
from tests.support.engines import ScriptedEngine

pytestmark = [pytest.mark.end_to_end, pytest.mark.filterwarnings("ignore::ResourceWarning")]


@pytest.fixture(scope="module", autouse=True)
def connection(ray_cluster: RayCluster) -> Iterator[None]:
    with connected(ray_cluster):
        yield


def config(path: str, *overrides: str) -> Config:
    settings = ["num_rows=40", "engine.device=cpu", "output.rows_per_partition=10", "cluster.num_actors=1"]
    return load_config(None, [*settings, f"output.path={path}", *overrides])


def on_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            return cls(2026, 11, day, 23, 59, tzinfo=tz)

    monkeypatch.setattr(layout, "datetime", Clock)


def test_each_day_has_its_build_and_latest_is_the_last_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (25, 26):
        on_day(monkeypatch, day)
        result = generate(config(f"{tmp_path}/{{date}}"), engine_factory=ScriptedEngine())
        assert result.url == f"{tmp_path}/2026-11-{day}"
        assert json.loads((tmp_path / "latest.json").read_text())["path"] == result.url
    assert verify(Storage(str(tmp_path / "latest"))).ok
    builds = [read_build(Storage(f"{tmp_path}/2026-11-{day}")) for day in (25, 26)]
    seeds = {build.identity["seed"] for build in builds if build}
    assert len(seeds) == 2
    on_day(monkeypatch, 25)
    again = generate(config(f"{tmp_path}/{{date}}", "num_rows=50"), engine_factory=ScriptedEngine())
    assert (again.url, again.new_rows) == (f"{tmp_path}/2026-11-25", 10)
    assert (tmp_path / "latest").resolve() == tmp_path / "2026-11-26"
    rows = list(read_rows(Storage(again.url)))
    assert [row["row_id"] for row in rows] == list(range(50))


def test_a_try_after_midnight_goes_on_with_the_build_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = config(f"{tmp_path}/{{date}}", "output.build_id=nightly-7", "acceptance.max_attempts=1")
    on_day(monkeypatch, 25)
    with pytest.raises(RowExhaustedError):
        generate(asked, engine_factory=ScriptedEngine(reject_every=2))
    assert not (tmp_path / "latest.json").exists()
    on_day(monkeypatch, 26)
    result = generate(asked, engine_factory=ScriptedEngine())
    assert result.url == f"{tmp_path}/2026-11-25"
    assert [run.outcome for run in read_runs(Storage(result.url))] == ["failed", "done"]
    assert (tmp_path / "latest").resolve() == tmp_path / "2026-11-25"


def test_a_build_that_is_there_is_skipped_or_refused(tmp_path: Path) -> None:
    asked = config(str(tmp_path / "build"))
    generate(asked, engine_factory=ScriptedEngine(), if_exists="fail")
    skipped = generate(asked, engine_factory=ScriptedEngine(), if_exists="skip")
    assert skipped.left_alone == "it is complete"
    with pytest.raises(BuildExistsError, match="--if-exists is fail"):
        generate(asked, engine_factory=ScriptedEngine(), if_exists="fail")
    assert generate(asked, engine_factory=ScriptedEngine()).new_rows == 0
