"""The vLLM engine over a stand-in for vLLM's LLMEngine: errors, aborts, and the end of messages."""

from types import SimpleNamespace

import pytest

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import Request, Sampling
from magpie_ray.engine.vllm.engine import VllmEngine, ids_without_ending
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import EngineError
from magpie_ray.utils.redaction import secrets_of


class LlmEngine:
    """vLLM's LLMEngine, as far as these tests need it."""

    vllm_config = SimpleNamespace(
        cache_config=SimpleNamespace(block_size=16, num_gpu_blocks=4),
        scheduler_config=SimpleNamespace(max_num_seqs=4),
        model_config=SimpleNamespace(max_model_len=64),
    )

    def __init__(self) -> None:
        self.aborted: list[str] = []

    def add_request(self, *_: object) -> None:
        """Queued, and never answered."""

    def abort_request(self, request_ids: list[str]) -> None:
        self.aborted += request_ids


class FailingLlmEngine:
    """Quotes its arguments whenever it is called."""

    vllm_config = LlmEngine.vllm_config

    def __getattr__(self, name: str) -> object:
        def fail(*_: object) -> None:
            raise RuntimeError(f"{name} failed: EngineArgs(hf_token='hunter2hunter2')")

        return fail


def test_errors_of_vllm_are_told_without_secrets() -> None:
    secrets = secrets_of({"hf_token": "hunter2hunter2"}, {})
    engine = VllmEngine(FailingLlmEngine(), StepCounter(), secrets=secrets)
    for call in (engine.step, lambda: engine.abort([1])):
        with pytest.raises(EngineError, match=r"RuntimeError: .* failed: EngineArgs\(hf_token='\*\*\*'\)$"):
            call()


def test_aborted_requests_are_not_outstanding_any_more() -> None:
    llm_engine, sampling = LlmEngine(), Sampling(settings=SamplingSettings())
    engine = VllmEngine(llm_engine, StepCounter(), make_params=lambda _: None)
    for number in (1, 2, 3):
        engine.submit(Request(request_id=number, prompt_token_ids=[7], sampling=sampling))
    engine.abort([1, 3])
    assert (llm_engine.aborted, engine.outstanding) == (["1", "3"], 1)


PIECES = {1: "Hel", 2: "lo", 3: " wor", 4: "ld</", 5: "s>", 9: "<end>"}


def decode(token_ids: list[int]) -> str:
    return "".join(PIECES[token_id] for token_id in token_ids)


def message_ids(token_ids: tuple[int, ...], reason: str, stop: int | str | None, text: str = "") -> list[int]:
    answer = SimpleNamespace(token_ids=token_ids, finish_reason=reason, stop_reason=stop, text=text)
    return ids_without_ending(answer, decode)


@pytest.mark.parametrize("stop_reason", [9, None])  # a stop token of ours, or the model's own end
def test_the_token_that_ended_a_message_is_not_part_of_it(stop_reason: int | None) -> None:
    assert message_ids((1, 2, 9), "stop", stop_reason) == [1, 2]
    assert message_ids((9,), "stop", stop_reason) == []


def test_a_cut_message_keeps_all_its_tokens() -> None:
    assert message_ids((1, 2, 3), "length", None) == [1, 2, 3]


def test_a_stop_string_takes_the_tokens_it_stands_in() -> None:
    assert message_ids((1, 2, 3, 4, 5), "stop", "</s>", text="Hello world") == [1, 2, 3]
    assert message_ids((4, 5), "stop", "ld</s>", text="") == []
    assert message_ids((1, 2, 5), "stop", "s>", text="Hello") == [1, 2]
