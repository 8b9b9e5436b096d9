"""vLLM behind the ScoringEngine protocol.

Log-probabilities of asked tokens come from `SamplingParams.logprob_token_ids`: those of the model itself,
before any mask, so that a request costs a prefill and one token whatever is asked. vLLM's structured outputs
would force a label too, but their log-probabilities stand behind the mask of a grammar that also takes every
other spelling of a label in tokens, and a label costs all its tokens. Vectors come from vLLM's pooling
runner, logits without an activation.
"""

import logging
from collections.abc import Callable, Collection
from typing import Any

from magpie_ray.config.scoring import ScoreKind
from magpie_ray.engine.scoring import Score, ScoreRequest
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.llm import LlmCalls, StartedLlm, start_llm_engine
from magpie_ray.errors import ConfigError

log = logging.getLogger(__name__)

# What vLLM calls the task of a model that serves a kind, and what such a model is.
_TASKS: dict[ScoreKind, tuple[str, str]] = {
    "choice": ("generate", "a chat model"),
    "reward": (
        "classify",
        "a reward model, whose architecture in config.json ends in SequenceClassification",
    ),
    "embed": ("embed", "an embedding model"),
}


def start_vllm_scoring(settings: VllmSettings, kind: ScoreKind) -> "VllmScoringEngine":
    """Start an engine for scores of one kind in this process.

    Raises what `start_llm_engine` raises; ConfigError when the model is of another kind.
    """
    started = start_llm_engine(settings, runner="generate" if kind == "choice" else "pooling")
    task, what = _TASKS[kind]
    tasks = started.llm_engine.get_supported_tasks()
    if task not in tasks:
        started.llm_engine.engine_core.shutdown()
        raise ConfigError(
            f"model.name: got {settings.model!r}, which vLLM runs for {', '.join(tasks)}; columns of the "
            f"kind {kind} need {what}"
        )
    engine = VllmScoringEngine(started, kind)
    log.info("vLLM engine ready for %s: %s", kind, engine.figures)
    return engine


def make_score_params(kind: ScoreKind, asked: tuple[int, ...]) -> Any:
    """vLLM's SamplingParams or PoolingParams for requests of the kind that ask about these tokens."""
    if kind != "choice":
        from vllm import PoolingParams

        # Raw logits of a reward model; the vectors of an embedding model are normalised.
        return PoolingParams(task=_TASKS[kind][0], use_activation=kind == "embed")
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        logprob_token_ids=list(asked),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # as for messages: engine.make_sampling_params
    )


class VllmScoringEngine(LlmCalls):
    """A vLLM LLMEngine as a ScoringEngine. make_params: makes vLLM's parameters of requests."""

    def __init__(
        self,
        started: StartedLlm,
        kind: ScoreKind,
        *,
        make_params: Callable[[ScoreKind, tuple[int, ...]], Any] = make_score_params,
    ) -> None:
        super().__init__(
            started.llm_engine, started.counter, secrets=started.secrets, processes=started.processes
        )
        self._kind, self._make_params = kind, make_params
        self._asked = dict[int, tuple[int, ...]]()  # by request_id
        self._params = dict[tuple[int, ...], Any]()

    @property
    def longest_prompt(self) -> int:
        """Behind a prompt there is room for one token where one is generated."""
        return self.figures.max_model_len - (self._kind == "choice")

    @property
    def vector_size(self) -> int | None:
        config = self.llm_engine.vllm_config.model_config
        if self._kind == "choice":
            return None
        size: int = config.embedding_size if self._kind == "embed" else config.hf_config.num_labels
        return size

    def submit(self, request: ScoreRequest) -> None:
        if (params := self._params.get(request.asked)) is None:
            params = self._params[request.asked] = self._make_params(self._kind, request.asked)
        self._add(str(request.request_id), request.prompt_token_ids, params)
        self._outstanding.add(request.request_id)
        if request.asked:
            self._asked[request.request_id] = request.asked

    def abort(self, request_ids: Collection[int]) -> None:
        super().abort(request_ids)
        for request_id in request_ids:
            self._asked.pop(request_id, None)

    def step(self) -> list[Score]:
        scores = [self._score(output) for output in self._step()]
        self.counter.completed_tokens += len(scores)
        return scores

    def _score(self, output: Any) -> Score:
        request_id = int(output.request_id)
        self._outstanding.discard(request_id)
        if self._kind != "choice":
            return Score(request_id=request_id, numbers=output.outputs.data.flatten().tolist())
        [by_token] = output.outputs[0].logprobs
        # vLLM adds the token that it picked to those that were asked for.
        numbers = [by_token[token_id].logprob for token_id in self._asked.pop(request_id)]
        return Score(request_id=request_id, numbers=numbers)
