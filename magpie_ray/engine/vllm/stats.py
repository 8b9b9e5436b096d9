"""What is counted of a vLLM engine, and whether vLLM's own metrics are exported beside it.

vLLM adds a Prometheus logger of its own unless it is given one, and that one costs a microsecond for every
token, in the thread that steps (0.4 ms a step at 512 sequences): so what counts here passes for one. Where
vLLM's metrics are asked for, they go to Ray's metrics endpoint, latencies between tokens of one step a
second alone. What remains took half a millisecond a step with 64 sequences, on a busy machine of two cores.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from magpie_ray.engine.protocol import EngineStats
from magpie_ray.errors import ConfigError

_LATENCIES_EVERY_SECONDS = 1.0


@dataclass(slots=True)
class Counters:
    """EngineStats while they grow. kv_use: the part of the cache that is held, summed over steps."""

    kv_capacity_tokens: int = 0
    steps: int = 0
    running: int = 0
    kv_use: float = 0.0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0

    def stats(self) -> EngineStats:
        counts = asdict(self)
        held = counts.pop("kv_use") * counts.pop("kv_capacity_tokens")
        return EngineStats(**counts, kv_used_tokens=round(held))

    def add(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """What vLLM tells of one step."""
        if scheduler_stats is not None:
            self.running += scheduler_stats.num_running_reqs
            self.kv_use += scheduler_stats.kv_cache_usage
            cache = scheduler_stats.prefix_cache_stats
            self.prompt_tokens += cache.queries
            self.cached_prompt_tokens += cache.hits
            self.recomputed_tokens += cache.preempted_queries - cache.preempted_hits
        if iteration_stats is not None:
            # The scheduler counts when those that end in this step have left.
            self.running += len(iteration_stats.finished_requests)
            self.generated_tokens += iteration_stats.num_generation_tokens
            self.preemptions += iteration_stats.num_preempted_reqs


def stat_logger(counters: Counters, *, on_ray: bool) -> Callable[..., Any]:
    """A vLLM stat logger that adds up into `counters`; with `on_ray` vLLM's own metrics go to Ray as well.

    ConfigError when that can't be: vLLM's part for it imports Ray Serve.
    """
    return _exporting(counters) if on_ray else _counting(counters)


def _counting(counters: Counters) -> Callable[..., Any]:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class CountingStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: object, engine_indexes: object = None) -> None:
            pass  # and no Prometheus metrics are registered

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: object, **__: object) -> None:
            counters.add(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

        def record_sleep_state(self, *_: object, **__: object) -> None:
            pass

    return CountingStatLogger


def _exporting(counters: Counters) -> Callable[..., Any]:
    from vllm.v1.metrics import ray_wrappers

    if ray_wrappers.ray_metrics is None:
        raise ConfigError(
            "engine.vllm_metrics: true needs Ray Serve wherever an engine runs, as vLLM's export to Ray "
            'imports it: pip install "ray[serve]", or set engine.vllm_metrics=false'
        )

    class ExportingStatLogger(ray_wrappers.RayPrometheusStatLogger):  # type: ignore[misc]
        told_latencies = 0.0

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: object, **kwargs: object) -> None:
            counters.add(scheduler_stats, iteration_stats)
            if iteration_stats is not None and iteration_stats.inter_token_latencies_iter:
                now = time.monotonic()
                if now - self.told_latencies < _LATENCIES_EVERY_SECONDS:
                    iteration_stats = copy.copy(iteration_stats)
                    iteration_stats.inter_token_latencies_iter = []
                else:
                    self.told_latencies = now
            super().record(scheduler_stats, iteration_stats, *args, **kwargs)

    return ExportingStatLogger
