"""The metrics that a run exports: their names, and the samples that follow from a job's state.

Pure: driver.ray_metrics sends the samples. Names follow Prometheus; Ray prefixes each with `ray_`.
Invariants: a counter counts this run only and never falls; committed rows and tokens agree with the footers
of the run's files, even if actors are lost; each label has a bounded number of values.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from magpie_ray.coordinator.watcher import Snapshot
from magpie_ray.counters import EngineStats
from magpie_ray.worker.events import Committed

# Every metric has these labels: the output, and the number of the run.
COMMON_LABELS = ("build", "run")
# A user's own rules may return any reason.
MAX_REASONS = 50
OTHER_REASON = "other"
# Ratios are means over this time, in which every engine of a fleet reports at least once.
RECENT_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One metric. labels: in addition to the common ones. bounds: of a histogram's buckets, in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A value of a metric: a counter's total so far, a gauge's value, or one observation of a histogram."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def _counter(name: str, description: str, *labels: str) -> Metric:
    return Metric(name=f"magpie_ray_{name}", kind="counter", description=description, labels=labels)


def _gauge(name: str, description: str, *labels: str) -> Metric:
    return Metric(name=f"magpie_ray_{name}", kind="gauge", description=description, labels=labels)


def _seconds(name: str, description: str, *bounds: float) -> Metric:
    return Metric(name=f"magpie_ray_{name}", kind="histogram", description=description, bounds=bounds)


METRICS = (
    _counter("rows_total", "Rows committed by this run"),
    _counter("tokens_total", "Tokens generated for committed rows, rejected attempts included", "role"),
    _counter("attempts_total", "Attempts behind committed rows: accepted, or why rejected", "reason"),
    _counter("generated_rows_total", "Rows finished by engines, rows lost with an actor included"),
    _counter(
        "generated_tokens_total", "Tokens of finished messages, rejected and lost ones included", "role"
    ),
    _counter("lost_rows_total", "Finished rows lost with an actor, which are generated again"),
    _counter("lost_actors_total", "Actors that were lost or left"),
    _counter("retries_total", "Retries: of a lost actor's partition, of a request to storage", "of"),
    _counter("engine_steps_total", "Steps of all engines"),
    _counter("preemptions_total", "Requests preempted because the KV cache was full"),
    _counter("known_prompt_tokens_total", "Prompt tokens prefilled or generated before"),
    _counter(
        "read_again_tokens_total", "Known prompt tokens prefilled again after eviction from the KV cache"
    ),
    _gauge("build_rows", "Rows of the build committed by all its runs"),
    _gauge("build_target_rows", "Rows that the build will have"),
    _gauge("rows_per_second", "Rows per second of this run since its first engine was up"),
    _gauge("actors", "Actors: up, starting (placed, the engine not up), waiting (for a node)", "state"),
    _gauge("batch_occupancy_ratio", "Fraction of the engines' batch slots in use"),
    _gauge("kv_cache_use_ratio", "Fraction of the KV caches that running requests hold"),
    _gauge("prefix_hit_ratio", "Fraction of known prompt tokens that the KV cache still held"),
    _seconds(
        "partition_seconds",
        "From assigning a partition to committing it",
        *(1, 5, 15, 30, 60, 120, 300, 600, 1200, 2400, 4800),
    ),
    _seconds(
        "upload_seconds", "Writing one partition to storage", *(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 600)
    ),
)


def exported_names() -> tuple[str, ...]:
    """Names on Ray's metrics endpoint, including the parts of histograms."""
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    return tuple(f"ray_{metric.name}{part}" for metric in METRICS for part in parts[metric.kind])


class Telemetry:
    """Turns the snapshots and commits of one run into samples of METRICS."""

    def __init__(self) -> None:
        self._reasons: set[str] = set()
        self._uses = deque[tuple[float, EngineStats]]()

    def counters(self, snapshot: Snapshot) -> Iterator[Sample]:
        """Totals of the run."""
        committed, generated, use = snapshot.committed, snapshot.generated, snapshot.engines
        yield _sample("rows_total", committed.rows)
        yield _sample("tokens_total", committed.user_tokens, role="user")
        yield _sample("tokens_total", committed.assistant_tokens, role="assistant")
        for reason, number in self._bounded({"accepted": committed.rows, **committed.rejected}).items():
            yield _sample("attempts_total", number, reason=reason)
        yield _sample("generated_rows_total", generated.rows)
        yield _sample("generated_tokens_total", generated.user_tokens, role="user")
        yield _sample("generated_tokens_total", generated.assistant_tokens, role="assistant")
        yield _sample("lost_rows_total", snapshot.lost_rows)
        yield _sample("lost_actors_total", snapshot.lost)
        yield _sample("retries_total", snapshot.retried_partitions, of="partition")
        yield _sample("retries_total", snapshot.storage_retries, of="request")
        yield _sample("engine_steps_total", use.steps)
        yield _sample("preemptions_total", use.preemptions)
        yield _sample("known_prompt_tokens_total", use.known_tokens)
        yield _sample("read_again_tokens_total", use.read_again)

    def gauges(self, snapshot: Snapshot, now: float) -> Iterator[Sample]:
        """The current state. now: seconds of a monotonic clock."""
        yield _sample("build_rows", snapshot.committed_rows)
        yield _sample("build_target_rows", snapshot.num_rows)
        yield _sample("rows_per_second", snapshot.rows_per_second)
        yield _sample("actors", snapshot.actors_up, state="up")
        yield _sample("actors", snapshot.actors_starting, state="starting")
        yield _sample("actors", snapshot.actors_waiting, state="waiting")
        recent = self._recent(snapshot.engines, now)
        yield _sample("batch_occupancy_ratio", recent.occupancy)
        yield _sample("kv_cache_use_ratio", recent.kv_use)
        if recent.known_tokens > 0:  # one-turn builds have none
            yield _sample("prefix_hit_ratio", recent.prefix_hits)

    @staticmethod
    def durations(event: Committed) -> Iterator[Sample]:
        """Of one committed partition."""
        yield _sample("partition_seconds", event.seconds)
        yield _sample("upload_seconds", event.upload_seconds)

    def _bounded(self, by_reason: Mapping[str, int]) -> Mapping[str, int]:
        """The same counts; reasons beyond the first MAX_REASONS are counted as one."""
        bounded = dict[str, int]()
        for reason, number in by_reason.items():
            if reason not in self._reasons and len(self._reasons) >= MAX_REASONS:
                reason = OTHER_REASON
            else:
                self._reasons.add(reason)
            bounded[reason] = bounded.get(reason, 0) + number
        return bounded

    def _recent(self, use: EngineStats, now: float) -> EngineStats:
        self._uses.append((now, use))
        while len(self._uses) > 2 and self._uses[1][0] <= now - RECENT_SECONDS:
            self._uses.popleft()
        return use.since(self._uses[0][1])


def _sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name=f"magpie_ray_{name}", value=value, labels=labels)
