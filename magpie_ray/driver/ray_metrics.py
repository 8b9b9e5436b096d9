"""A run's metrics on Ray's own metrics endpoint, where Prometheus finds them.

Invariant: metrics that Ray does not take never end a run.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge, Histogram

from magpie_ray.coordinator.watcher import JobEvent, Snapshot, Watcher
from magpie_ray.monitoring.metrics import COMMON_LABELS, METRICS, Sample, Telemetry
from magpie_ray.worker.events import Committed

log = logging.getLogger(__name__)

# Ray drops a gauge that was not set during its last two report intervals of up to 10 s each.
_EVERY_SECONDS = 1.0

_ASCII = "".join(map(chr, range(128)))


class RayMetrics(Watcher):
    """A watcher of a job, and a context: leaving it publishes the last snapshot.

    build, run: labels of every metric. Only the driver publishes, so the work of lost actors stays counted
    and nothing is counted twice.
    """

    def __init__(self, *, build: str, run: int) -> None:
        makers = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}
        common = dict(zip(COMMON_LABELS, (_as_label(build), str(run)), strict=True))
        self._metrics = {}
        for metric in METRICS:
            bounds = {"boundaries": list(metric.bounds)} if metric.bounds else {}
            made = makers[metric.kind](
                metric.name, metric.description, tag_keys=(*COMMON_LABELS, *metric.labels), **bounds
            )
            self._metrics[metric.name] = made.set_default_tags(common)
        self._telemetry = Telemetry()
        self._counted: dict[tuple[str, ...], float] = {}
        self._last: Snapshot | None = None
        self._next = 0.0
        self._refused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._last:
            self._publish(self._last)

    def show(self, snapshot: Snapshot) -> None:
        self._last = snapshot
        if time.monotonic() >= self._next:
            self._publish(snapshot)

    def hear(self, slot: int, event: JobEvent) -> None:
        if isinstance(event, Committed):
            with self._never_ending_the_run():
                for sample in self._telemetry.durations(event):
                    self._metrics[sample.name].observe(sample.value, tags=_labels(sample))

    def _publish(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        self._next = now + _EVERY_SECONDS
        with self._never_ending_the_run():
            for sample in self._telemetry.counters(snapshot):
                self._count(sample)
            for sample in self._telemetry.gauges(snapshot, now):
                self._metrics[sample.name].set(sample.value, tags=_labels(sample))

    def _count(self, sample: Sample) -> None:
        """Ray's counters take increments, and no zeros: a counter that never counted does not exist."""
        key = (sample.name, *sample.labels.values())
        before = self._counted.get(key, 0.0)
        if sample.value > before:
            self._counted[key] = sample.value
            self._metrics[sample.name].inc(sample.value - before, tags=_labels(sample))

    @contextmanager
    def _never_ending_the_run(self) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - Ray's code, and nothing that the rows depend on
            if not self._refused:
                log.warning("Ray does not take this run's metrics: %s", exc)
            self._refused = True


def _labels(sample: Sample) -> dict[str, str]:
    return {key: _as_label(value) for key, value in sample.labels.items()}


def _as_label(text: str) -> str:
    """Ray's labels are ASCII: other characters are written as in a URL."""
    return quote(text, safe=_ASCII, errors="surrogateescape")
