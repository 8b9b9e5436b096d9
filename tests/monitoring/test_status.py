"""What a build's storage tells of its progress."""

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.cli.views.status import bars, status_fields, status_text
from magpie_ray.dataset import build_record, layout, run_records
from magpie_ray.dataset.layout import heartbeat_key
from magpie_ray.dataset.run_records import GONE_SECONDS
from magpie_ray.monitoring.status import Commit, history, rate, read_status
from magpie_ray.storage.storage import Storage
from magpie_ray.types import StoredObject
from tests.monitoring.test_progress import HALF_WAY
from tests.support.builds import build_of, commit, complete_build, memory_storage

NOW = 1_000_000.0


class DatedStorage(Storage):
    """Its time is NOW; its objects are as old as `ages` says, by key. It keeps the keys that are read."""

    def __init__(self) -> None:
        super().__init__(memory_storage().url)
        self.ages: dict[str, float] = {}
        self.keys_read: list[str] = []

    def now(self) -> float:
        return NOW

    def list_objects(self, prefix: str) -> list[StoredObject]:
        return [
            replace(item, modified=NOW - self.ages.get(item.key, 0.0))
            for item in super().list_objects(prefix)
        ]

    def read(self, key: str) -> bytes:
        self.keys_read.append(key)
        return super().read(key)


def working_build(*, beat_age: float) -> DatedStorage:
    """40 rows are wanted; 20 are there, of 100, 50, 40 and 4,000 seconds ago; a driver has been heard of."""
    storage = DatedStorage()
    record = build_record.open_build(storage, build_of(5))
    began = datetime.fromtimestamp(NOW - 5000, UTC).isoformat()
    run = run_records.start_run(storage, num_rows=40, host="node-1", config={})
    storage.replace(run.key, layout.to_json(asdict(replace(run, started=began))))
    for start, age in ((0, 4000.0), (5, 100.0), (10, 50.0), (15, 40.0)):
        storage.ages[commit(storage, record, start, start + 5).partition.key] = age
    beat = replace(HALF_WAY, lost=2).fields()
    storage.replace(heartbeat_key(run.number), json.dumps({**beat, "token": run.token}).encode())
    storage.ages |= {run.key: 5000.0, heartbeat_key(run.number): beat_age}
    return storage


def view(storage: Storage) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields, and the lines of the text by their first word or two."""
    fields = status_fields(read_status(storage))
    json.dumps(fields)
    lines = status_text(fields).splitlines()
    return fields, {line[:12].strip(): line[12:] for line in lines[1:]}


def test_a_build_at_work_tells_rates_by_its_commits_and_more_by_its_heartbeat() -> None:
    fields, lines = view(working_build(beat_age=12.0))
    assert (fields["state"], fields["rows"], fields["last_commit_seconds_ago"]) == ("running", 20, 40.0)
    assert fields["rows_per_second"] == {"last_10_minutes": 0.025, "last_hour": 0.004, "last_day": 0.004}
    assert fields["eta_seconds"] == 200 - 12
    assert "token" not in fields["heartbeat"]
    assert len(fields["history"]["rows_per_second"]) == 24
    assert lines["driver"] == (
        "run 1 is at work, heartbeat 12 s ago: 1,000 rows finished, 5.0 rows/s, 500 tokens/s, actors: 2 up, "
        "1 to come, 2 replaced"
    )
    assert lines["time left"] == "about 3:08"
    assert lines["rows"] == "20 of 40 committed (50%)"
    assert lines["over time"] == "▁▁▁▁▃▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁█ 1:23:20"
    assert lines["last commit"] == "40 s ago"
    assert lines["rate"] == "0.0 rows/s in the last 10 minutes, 0.0 rows/s in the last hour"


def test_the_rates_of_a_young_run_are_over_its_own_time() -> None:
    storage = DatedStorage()
    record = build_record.open_build(storage, build_of(5))
    run = run_records.start_run(storage, num_rows=40, host="node-1", config={})
    began = datetime.fromtimestamp(NOW - 20, UTC).isoformat()
    storage.replace(run.key, layout.to_json(asdict(replace(run, started=began))))
    storage.ages[commit(storage, record, 0, 5).partition.key] = 10.0
    fields, lines = view(storage)
    assert lines["rate"] == "0.2 rows/s since the run began"
    assert set(fields["rows_per_second"].values()) == {0.25}


def test_a_driver_that_fell_silent_is_shown_with_what_to_do() -> None:
    fields, lines = view(working_build(beat_age=720.0))
    assert (fields["state"], fields["eta_seconds"], fields["heartbeat"]["alive"]) == ("gone", None, False)
    assert lines["driver"] == (
        "no heartbeat for 12 min: the driver of run 1 seems to be gone; run the same command again"
    )
    assert "time left" not in lines
    assert lines["run 1"].startswith("lost, of 40 rows, on ")
    assert fields["runs"][0]["outcome"] == "lost"


def test_a_driver_is_taken_for_gone_only_after_a_while() -> None:
    for age, state in ((GONE_SECONDS - 1, "running"), (GONE_SECONDS + 1, "gone")):
        assert read_status(working_build(beat_age=age)).state == state


def test_a_run_that_has_not_beaten_yet_is_as_old_as_its_record() -> None:
    storage = DatedStorage()
    build_record.open_build(storage, build_of(5))
    run = run_records.start_run(storage, num_rows=40, host="node-1", config={})
    storage.ages[run.key] = 30.0
    fields, lines = view(storage)
    assert (fields["state"], fields["last_commit_seconds_ago"], fields["eta_seconds"]) == (
        "running",
        None,
        None,
    )
    assert lines["driver"] == "run 1 is at work, heartbeat 30 s ago"


def test_of_two_drivers_the_one_at_work_is_shown() -> None:
    storage = working_build(beat_age=10.0)
    later = run_records.start_run(storage, num_rows=40, host="node-2", config={})
    storage.ages[later.key] = 2 * GONE_SECONDS
    fields, _ = view(storage)
    assert (fields["state"], fields["heartbeat"]["run"]) == ("running", 1)
    assert [run["outcome"] for run in fields["runs"]] == ["running", "lost"]


def test_runs_that_have_ended_are_shown_with_how_they_did() -> None:
    storage = DatedStorage()
    record = build_record.open_build(storage, build_of(5))
    fields, lines = view(storage)
    assert (fields["state"], lines["driver"]) == ("new", "none: no run has begun; run the same command again")
    run = run_records.start_run(storage, num_rows=40, host="node-1", config={})
    commit(storage, record, 0, 5)
    run_records.end_run(storage, run, outcome="failed", cause="the engine died")
    fields, lines = view(storage)
    assert lines["driver"] == "none: run 1 has ended; run the same command again to resume"
    assert lines["run 1"].startswith("failed, of 40 rows, on node-1, ")
    assert lines["run 1"].endswith(": the engine died")
    assert not {"token", "config"} & set(fields["runs"][0])


def test_a_complete_build_needs_nobody() -> None:
    storage = DatedStorage()
    complete_build(storage)
    fields, lines = view(storage)
    assert status_text(fields).splitlines()[0] == f"{storage.url}: complete"
    assert lines["driver"] == "none: all is done"
    assert re.fullmatch(r"3, \d+\.?\d* kB", lines["files"])
    assert (lines["attempts"], lines["tokens"]) == ("10, rejected: none", "200 user, 210 assistant")


def test_a_damaged_heartbeat_hides_nothing_else() -> None:
    storage = working_build(beat_age=10.0)
    storage.replace(heartbeat_key(1), b"{")
    fields, _ = view(storage)
    assert (fields["state"], fields["rows"]) == ("running", 20)


@pytest.mark.parametrize(("values", "drawn"), [([], ""), ([0.0, 0.0], "▁▁"), ([0.0, 1.0, 2.0], "▁▅█")])
def test_bars_are_as_high_as_their_values(values: list[float], drawn: str) -> None:
    assert bars(values) == drawn


def test_status_asks_for_few_objects() -> None:
    storage = working_build(beat_age=1.0)
    storage.keys_read.clear()
    read_status(storage)
    assert sorted(storage.keys_read) == [
        "_magpie/build.json",
        "_magpie/manifest.json",
        "_magpie/runs/000001.heartbeat.json",
        "_magpie/runs/000001.json",
    ]


# ---- rates over time, by when files were committed

COMMITS = [Commit(at=at, rows=10) for at in (100.0, 110.0, 119.0, 120.0)]


def test_a_rate_counts_what_was_committed_in_its_time() -> None:
    assert rate(COMMITS, begin=100.0, end=120.0) == 1.5
    assert rate(COMMITS, begin=115.0, end=120.0) == 4.0
    assert rate(COMMITS, begin=120.0, end=140.0) == 0.0
    assert rate(COMMITS, begin=120.0, end=120.0) == 0.0


def test_a_history_has_a_rate_for_each_part_of_the_time() -> None:
    assert history(COMMITS, begin=99.0, end=119.0, parts=2) == [1.0, 2.0]
    assert history(COMMITS, begin=110.0, end=120.0, parts=5) == [0, 0, 0, 0, 10]
    assert history(COMMITS, begin=120.0, end=120.0, parts=5) == []


@given(st.lists(st.tuples(st.floats(-10, 110), st.integers(1, 50))), st.integers(1, 9))
def test_the_parts_of_a_history_make_up_the_whole(made: list[tuple[float, int]], parts: int) -> None:
    commits = [Commit(at=at, rows=rows) for at, rows in made]
    rates = history(commits, begin=0.0, end=100.0, parts=parts)
    assert abs(sum(rates) / parts - rate(commits, begin=0.0, end=100.0)) < 1e-9


def test_a_score_pass_tells_requests_and_rows_without_a_value() -> None:
    fields = {**status_fields(read_status(working_build(beat_age=12.0))), "job": "score", "unanswered": 3}
    lines = status_text({**fields, "rejected": {"context_full": 3}}).splitlines()
    assert "lacking     3 rows without a value, refused: 3 context_full" in lines
    assert not [line for line in lines if line.startswith(("attempts", "tokens"))]
    assert any("500 requests/s, actors: 2 up" in line for line in lines)
