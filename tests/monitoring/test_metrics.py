"""What is exported of a run, as samples."""

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.coordinator.watcher import Snapshot
from magpie_ray.counters import EngineStats, Tally
from magpie_ray.monitoring.metrics import (
    COMMON_LABELS,
    MAX_REASONS,
    METRICS,
    OTHER_REASON,
    RECENT_SECONDS,
    Sample,
    Telemetry,
)
from magpie_ray.types import Partition
from magpie_ray.worker.events import Committed

SNAPSHOT = Snapshot(
    num_rows=2000,
    rows=1000,
    rows_this_run=500,
    committed_rows=900,
    generated=Tally(rows=520, rejected={"empty": 30}, user_tokens=600, assistant_tokens=4000),
    committed=Tally(rows=400, rejected={"empty": 20, "truncated": 3}, user_tokens=500, assistant_tokens=3000),
    engines=EngineStats(steps=10, slots=100, running=90, kv_tokens=1000, kv_used_tokens=400),
    actors_up=2,
    actors_starting=1,
    actors_wanted=6,
    lost=4,
    lost_rows=20,
    retried_partitions=5,
    storage_retries=7,
    seconds=100.0,
)
EVENT = Committed(partition=Partition(start=0, stop=8), files=(), seconds=12.0, upload_seconds=0.5)


def values(samples: list[Sample]) -> dict[str, float]:
    """By name, labels behind it."""
    return {
        " ".join([sample.name.removeprefix("magpie_ray_"), *sample.labels.values()]): sample.value
        for sample in samples
    }


def all_samples() -> list[Sample]:
    telemetry = Telemetry()
    known = replace(SNAPSHOT, engines=replace(SNAPSHOT.engines, known_tokens=10, cached_tokens=9))
    list(telemetry.gauges(replace(SNAPSHOT, engines=EngineStats()), 0.0))
    return [*telemetry.counters(SNAPSHOT), *telemetry.gauges(known, 1.0), *telemetry.durations(EVENT)]


def test_every_metric_has_samples_with_its_labels_and_there_are_no_others() -> None:
    labels = {(sample.name, tuple(sample.labels)) for sample in all_samples()}
    assert labels == {(metric.name, metric.labels) for metric in METRICS}


def test_names_follow_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"magpie_ray_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.kind != "histogram" or metric.name.endswith("_seconds")
        assert metric.kind != "histogram" or list(metric.bounds) == sorted(set(metric.bounds)) != []
        assert not set(metric.labels) & {*COMMON_LABELS, "le", "job", "instance", "SessionName", "WorkerId"}


def test_counters_tell_what_is_committed_and_what_was_generated_apart() -> None:
    samples = values(list(Telemetry().counters(SNAPSHOT)))
    assert samples["rows_total"] == 400
    assert (samples["tokens_total user"], samples["tokens_total assistant"]) == (500, 3000)
    assert samples["attempts_total accepted"] == 400
    assert (samples["attempts_total empty"], samples["attempts_total truncated"]) == (20, 3)
    assert (samples["generated_rows_total"], samples["generated_tokens_total assistant"]) == (520, 4000)
    assert (samples["retries_total partition"], samples["retries_total request"]) == (5, 7)
    assert (samples["lost_actors_total"], samples["lost_rows_total"]) == (4, 20)


def test_gauges_tell_the_state_of_actors_and_of_the_build() -> None:
    samples = values(list(Telemetry().gauges(SNAPSHOT, 0.0)))
    assert [samples[f"actors {state}"] for state in ("up", "starting", "waiting")] == [2, 1, 3]
    assert (samples["build_rows"], samples["build_target_rows"], samples["rows_per_second"]) == (
        900,
        2000,
        5.0,
    )


def test_shares_are_those_of_the_last_minute() -> None:
    telemetry = Telemetry()
    idle = EngineStats(steps=1000, slots=10_000, running=0, kv_tokens=100_000)
    list(telemetry.gauges(replace(SNAPSHOT, engines=EngineStats()), 0.0))
    list(telemetry.gauges(replace(SNAPSHOT, engines=idle), 100.0))
    busy = EngineStats.sum([idle, SNAPSHOT.engines])
    samples = values(list(telemetry.gauges(replace(SNAPSHOT, engines=busy), 100.0 + RECENT_SECONDS)))
    assert (samples["batch_occupancy_ratio"], samples["kv_cache_use_ratio"]) == (0.9, 0.4)
    assert "prefix_hit_ratio" not in samples


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 9), max_size=40), max_size=6))
def test_reasons_are_bounded_in_number_none_is_lost_and_no_total_falls(growth: list[dict[str, int]]) -> None:
    telemetry, tally, before = Telemetry(), Tally(), dict[str, float]()
    for rejected in growth:
        tally = Tally.sum([tally, Tally(rows=1, rejected=rejected)])
        samples = list(telemetry.counters(replace(SNAPSHOT, committed=tally)))
        attempts = {s.labels["reason"]: s.value for s in samples if s.name == "magpie_ray_attempts_total"}
        assert sum(attempts.values()) == tally.attempts
        assert len(attempts.keys() - {OTHER_REASON}) <= MAX_REASONS
        assert all(attempts[reason] >= value for reason, value in before.items())
        before = attempts


def test_a_commit_is_one_observation_of_each_duration() -> None:
    samples = values(list(Telemetry.durations(EVENT)))
    assert samples == {"partition_seconds": 12.0, "upload_seconds": 0.5}
