"""The scoring engine over a stand-in for vLLM's LLMEngine: what is asked, and what comes back."""

from types import SimpleNamespace
from typing import Any

import pytest

from magpie_ray.config.scoring import ScoreKind
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.scoring import Score, ScoreRequest
from magpie_ray.engine.vllm.args import VllmSettings, engine_args
from magpie_ray.engine.vllm.llm import StartedLlm
from magpie_ray.engine.vllm.processes import ProcessWatch
from magpie_ray.engine.vllm.scoring import VllmScoringEngine
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import EngineError


class LlmEngine:
    """vLLM's LLMEngine, as far as these tests need it. `outputs` are those of the next steps."""

    def __init__(self, *outputs: list[object]) -> None:
        self.outputs = list(outputs)
        self.aborted: list[str] = []
        self.vllm_config = SimpleNamespace(
            cache_config=SimpleNamespace(block_size=16, num_gpu_blocks=None, enable_prefix_caching=False),
            scheduler_config=SimpleNamespace(max_num_seqs=4),
            model_config=SimpleNamespace(
                max_model_len=64, embedding_size=384, hf_config=SimpleNamespace(num_labels=1)
            ),
        )
        self.added: list[tuple[str, Any, Any]] = []

    def add_request(self, request_id: str, prompt: object, params: object) -> None:
        self.added.append((request_id, prompt, params))

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids

    def step(self) -> list[object]:
        return self.outputs.pop(0)


def engine_over(llm_engine: object, kind: ScoreKind) -> VllmScoringEngine:
    started = StartedLlm(
        llm_engine=llm_engine, counter=StepCounter(), secrets=frozenset(), processes=ProcessWatch(())
    )
    return VllmScoringEngine(started, kind, make_params=lambda kind, asked: (kind, asked))


def written(request_id: str, logs: dict[int, float]) -> object:
    by_token = {token_id: SimpleNamespace(logprob=number) for token_id, number in logs.items()}
    outputs = [SimpleNamespace(logprobs=[by_token])]
    return SimpleNamespace(request_id=request_id, finished=True, outputs=outputs)


class Tensor:
    """torch's, as far as it is read."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = numbers

    def flatten(self) -> "Tensor":
        return self

    def tolist(self) -> list[float]:
        return self._numbers


def test_asked_tokens_are_answered_in_order_without_the_one_that_vllm_picked() -> None:
    llm_engine = LlmEngine([], [written("7", {9: -0.1, 3: -3.0, 5: -2.0})])
    engine = engine_over(llm_engine, "choice")
    engine.submit(ScoreRequest(request_id=7, prompt_token_ids=[1, 2], asked=(5, 3)))
    assert llm_engine.added == [("7", {"type": "token", "prompt_token_ids": [1, 2]}, ("choice", (5, 3)))]
    assert engine.step() == []
    assert engine.outstanding == 1
    assert engine.step() == [Score(request_id=7, numbers=[-2.0, -3.0])]
    assert engine.outstanding == 0
    stats = engine.stats()
    assert (stats.steps, stats.generated_tokens) == (2, 1)


def test_a_pooling_models_vector_comes_as_numbers() -> None:
    output = SimpleNamespace(request_id="1", finished=True, outputs=SimpleNamespace(data=Tensor([0.5, -1.0])))
    engine = engine_over(LlmEngine([output]), "embed")
    engine.submit(ScoreRequest(request_id=1, prompt_token_ids=[1]))
    assert engine.step() == [Score(request_id=1, numbers=[0.5, -1.0])]


def test_params_are_made_once_for_what_is_asked() -> None:
    llm_engine = LlmEngine()
    engine = engine_over(llm_engine, "choice")
    for number, asked in enumerate([(5, 3), (4,), (5, 3)]):
        engine.submit(ScoreRequest(request_id=number, prompt_token_ids=[1], asked=asked))
    params = [params for _, _, params in llm_engine.added]
    assert params[0] is params[2]
    assert params[0] != params[1]


def test_an_aborted_request_is_forgotten() -> None:
    llm_engine = LlmEngine()
    engine = engine_over(llm_engine, "choice")
    for number in (1, 2):
        engine.submit(ScoreRequest(request_id=number, prompt_token_ids=[1], asked=(5,)))
    engine.abort([1])
    assert (llm_engine.aborted, engine.outstanding) == (["1"], 1)


def test_only_a_model_that_writes_needs_room_behind_a_prompt_and_only_the_others_have_vectors() -> None:
    facts = {kind: engine_over(LlmEngine(), kind) for kind in ("choice", "reward", "embed")}
    assert {kind: engine.longest_prompt for kind, engine in facts.items()} == {
        "choice": 63,
        "reward": 64,
        "embed": 64,
    }
    assert {kind: engine.vector_size for kind, engine in facts.items()} == {
        "choice": None,
        "reward": 1,
        "embed": 384,
    }
    assert facts["embed"].figures.kv_cache_tokens == 0


def test_a_failing_engine_is_an_engine_error() -> None:
    class Failing(LlmEngine):
        def step(self) -> list[object]:
            raise RuntimeError("out of memory")

    engine = engine_over(Failing(), "reward")
    engine.submit(ScoreRequest(request_id=1, prompt_token_ids=[1]))
    with pytest.raises(EngineError, match="out of memory"):
        engine.step()


def test_a_pooling_model_gets_vllms_pooling_runner() -> None:
    settings = VllmSettings(engine=EngineConfig(), model="m", revision=None, device="cpu", seed=0)
    assert engine_args(settings)["runner"] == "generate"
    assert engine_args(settings, runner="pooling")["runner"] == "pooling"
