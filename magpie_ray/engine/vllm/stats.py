"""The counts of a vLLM engine, and the export of vLLM's own metrics to Ray.

Unless vLLM gets a Prometheus logger, it adds its own, which costs the stepping thread a microsecond a token
(0.4 ms a step at 512 sequences). The counting logger here therefore passes for a Prometheus logger. With
engine.vllm_metrics vLLM's metrics go to Ray's metrics endpoint, with the latencies between tokens from only
one step a second. The rest took half a millisecond a step with 64 sequences, on a busy machine of two cores.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.errors import ConfigError

_LATENCIES_EVERY_SECONDS = 1.0


class StepCounter:
    """Adds up the stats of each step by field of EngineStats.

    figures: of the engine, once it is up. completed_tokens: of the messages that have ended, whatever vLLM's
    statistics say, so that an engine whose statistics stay away is not taken for one that hangs.
    """

    figures: EngineFigures

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.completed_tokens = 0
        self._has_statistics = False
        self._kv_use = 0.0  # the share of the cache that is held, summed over steps

    def stats(self) -> EngineStats:
        steps, figures = self.counts["steps"], self.figures
        generated = max(self.counts["generated_tokens"], self.completed_tokens)
        return EngineStats(
            **{**self.counts, "generated_tokens": generated},
            slots=steps * figures.max_num_seqs,
            kv_tokens=steps * figures.kv_cache_tokens,
            kv_used_tokens=round(self._kv_use * figures.kv_cache_tokens),
        )

    def add(self, scheduler_stats: Any, iteration_stats: Any) -> None:
        """Add vLLM's stats of one step."""
        counts = self.counts
        self._has_statistics = True
        if scheduler_stats is not None:
            counts["running"] += scheduler_stats.num_running_reqs
            self._kv_use += scheduler_stats.kv_cache_usage
            cache = scheduler_stats.prefix_cache_stats
            counts["prompt_tokens"] += cache.queries
            counts["cached_tokens"] += cache.hits
            counts["recomputed_tokens"] += cache.preempted_queries - cache.preempted_hits
        if iteration_stats is not None:
            # The scheduler has already left out the requests that end in this step.
            counts["running"] += len(iteration_stats.finished_requests)
            counts["generated_tokens"] += iteration_stats.num_generation_tokens
            counts["preemptions"] += iteration_stats.num_preempted_reqs

    def discount(self, output: Any) -> None:
        """Take the tokens of a request that belongs to no message out of vLLM's stats, if there are any."""
        if self._has_statistics:
            self.counts["prompt_tokens"] -= len(output.prompt_token_ids)
            self.counts["cached_tokens"] -= output.num_cached_tokens or 0
            self.counts["generated_tokens"] -= len(output.outputs[0].token_ids)


def stat_logger(counter: StepCounter, *, on_ray: bool) -> Callable[..., Any]:
    """A vLLM stat logger that adds to `counter`. With `on_ray` vLLM's own metrics go to Ray as well.

    ConfigError when Ray Serve is missing, which vLLM imports for that.
    """
    return _exporting(counter) if on_ray else _counting(counter)


def _counting(counter: StepCounter) -> Callable[..., Any]:
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class CountingStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, vllm_config: object, engine_indexes: object = None) -> None:
            pass  # registers no Prometheus metrics

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: object, **__: object) -> None:
            counter.add(scheduler_stats, iteration_stats)

        def log_engine_initialized(self) -> None:
            pass

        def record_sleep_state(self, *_: object, **__: object) -> None:
            pass

    return CountingStatLogger


def _exporting(counter: StepCounter) -> Callable[..., Any]:
    from vllm.v1.metrics import ray_wrappers

    if ray_wrappers.ray_metrics is None:
        raise ConfigError(
            "engine.vllm_metrics: true needs Ray Serve wherever an engine runs, because vLLM's export to Ray "
            'imports it: pip install "ray[serve]", or set engine.vllm_metrics=false'
        )

    class ExportingStatLogger(ray_wrappers.RayPrometheusStatLogger):  # type: ignore[misc]
        latencies_exported = 0.0

        def record(self, scheduler_stats: Any, iteration_stats: Any, *args: object, **kwargs: object) -> None:
            counter.add(scheduler_stats, iteration_stats)
            if iteration_stats is not None and iteration_stats.inter_token_latencies_iter:
                now = time.monotonic()
                if now - self.latencies_exported < _LATENCIES_EVERY_SECONDS:
                    iteration_stats = copy.copy(iteration_stats)
                    iteration_stats.inter_token_latencies_iter = []
                else:
                    self.latencies_exported = now
            super().record(scheduler_stats, iteration_stats, *args, **kwargs)

    return ExportingStatLogger
