"""A run's metrics as Ray takes them."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from ray.util.metrics import Counter

from magpie_ray.driver.ray_metrics import RayMetrics
from tests.monitoring.test_metrics import EVENT, SNAPSHOT


def publish(build: str, reason: str = "empty") -> None:
    rejected = replace(SNAPSHOT.committed, rejected={reason: 20})
    with RayMetrics(build=build, run=1) as metrics:
        metrics.show(replace(SNAPSHOT, committed=rejected))
        metrics.hear(0, EVENT)


def test_builds_and_reasons_in_any_language_have_metrics(caplog: pytest.LogCaptureFixture) -> None:
    not_utf8 = str(Path("out") / "Gr\udcfc\udcdfe")
    for build in ("out/Übungen", "/data/数据", not_utf8, "out/a b%20c\n"):
        publish(build, reason="zu groß 😀")
    assert caplog.text == ""


def test_metrics_that_ray_refuses_end_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("the exporter is gone")

    monkeypatch.setattr(Counter, "inc", refuse)
    with caplog.at_level(logging.WARNING):
        publish("out/demo")
    assert caplog.text.count("Ray does not take this run's metrics: the exporter is gone") == 1
