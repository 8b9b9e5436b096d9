"""The vLLM engine over a stand-in for vLLM's LLMEngine: errors, aborts, and the end of messages."""

from types import SimpleNamespace

import pytest

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import Request, Sampling
from magpie_ray.engine.vllm.engine import VllmEngine, ids_without_ending
from magpie_ray.engine.vllm.llm import kv_cache_tokens
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import EngineError
from magpie_ray.utils.redaction import secrets_of
from tests.support.held import growth, held_by


class LlmEngine:
    """vLLM's LLMEngine, as far as these tests need it."""

    vllm_config = SimpleNamespace(
        cache_config=SimpleNamespace(block_size=16, num_gpu_blocks=4, enable_prefix_caching=True),
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


class AnsweringLlmEngine(LlmEngine):
    """Ends every request in the next step, with two tokens and the stop token."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def add_request(self, request_id: str, *_: object) -> None:
        self.waiting.append(request_id)

    def abort_request(self, request_ids: list[str]) -> None:
        self.waiting = [request_id for request_id in self.waiting if request_id not in request_ids]

    def step(self) -> list[SimpleNamespace]:
        waiting, self.waiting = self.waiting, []
        message = SimpleNamespace(token_ids=(1, 2, 9), finish_reason="stop", stop_reason=9)
        return [
            SimpleNamespace(
                request_id=request_id,
                finished=True,
                outputs=[message],
                prompt_token_ids=[7] * 17,
                num_cached_tokens=16,
            )
            for request_id in waiting
        ]


def test_the_engine_remembers_nothing_of_requests_that_are_over() -> None:
    params = SimpleNamespace(clone=SimpleNamespace)
    engine = VllmEngine(AnsweringLlmEngine(), StepCounter(), make_params=lambda _: params)
    sampling, samples = Sampling(settings=SamplingSettings()), []
    for number in range(0, 20_000, 4):
        for seed in range(4):
            engine.submit(
                Request(request_id=number + seed, prompt_token_ids=[7], sampling=sampling, seed=seed)
            )
        engine.refresh([7] * 20)
        engine.abort([number + 1])
        assert len(engine.step()) == 3
        if number % 1000 == 0:
            samples.append(held_by(engine))
    assert engine.outstanding == 0
    assert growth(samples) == {}


def test_tokens_are_counted_without_vllms_statistics() -> None:
    engine = VllmEngine(AnsweringLlmEngine(), StepCounter(), make_params=lambda _: None)
    for number in range(3):
        engine.submit(
            Request(request_id=number, prompt_token_ids=[7], sampling=Sampling(settings=SamplingSettings()))
        )
    before = engine.stats()
    engine.step()
    assert engine.stats().since(before).generated_tokens == 9


def test_refreshes_take_nothing_from_counts_that_vllms_statistics_do_not_fill() -> None:
    engine = VllmEngine(AnsweringLlmEngine(), StepCounter(), make_params=lambda _: None)
    engine.refresh([7] * 20)
    engine.step()
    stats = engine.stats()
    assert (stats.steps, stats.prompt_tokens, stats.generated_tokens) == (1, 0, 0)


def test_the_tokens_of_a_refresh_are_taken_out_of_vllms_statistics() -> None:
    counter = StepCounter()
    engine = VllmEngine(AnsweringLlmEngine(), counter, make_params=lambda _: None)
    engine.refresh([7] * 20)
    cache = SimpleNamespace(queries=117, hits=16, preempted_queries=0, preempted_hits=0)
    counter.add(
        SimpleNamespace(num_running_reqs=1, kv_cache_usage=0.5, prefix_cache_stats=cache),
        SimpleNamespace(finished_requests=[], num_generation_tokens=4, num_preempted_reqs=0),
    )
    engine.step()
    stats = engine.stats()
    assert (stats.prompt_tokens, stats.cached_tokens, stats.generated_tokens) == (100, 0, 1)


def test_tokens_are_not_counted_twice() -> None:
    counter = StepCounter()
    engine = VllmEngine(AnsweringLlmEngine(), counter, make_params=lambda _: None)
    engine.submit(Request(request_id=1, prompt_token_ids=[7], sampling=Sampling(settings=SamplingSettings())))
    engine.step()
    counter.counts["generated_tokens"] += 5  # another message has two tokens so far
    assert engine.stats().generated_tokens == 5


def test_an_engine_without_prefix_caching_is_not_asked_to_keep_prefixes() -> None:
    llm_engine = AnsweringLlmEngine()
    cache = SimpleNamespace(block_size=16, num_gpu_blocks=4, enable_prefix_caching=False)
    llm_engine.vllm_config = SimpleNamespace(**vars(LlmEngine.vllm_config) | {"cache_config": cache})
    VllmEngine(llm_engine, StepCounter()).refresh([7] * 40)
    assert llm_engine.waiting == []


@pytest.mark.parametrize(
    ("stated", "tokens"),
    [
        ({}, 64),  # a version of vLLM that does not state it
        ({"kv_cache_size_tokens": None}, 64),
        ({"kv_cache_size_tokens": 27}, 27),
        ({"kv_cache_size_tokens": 100}, 64),  # sequences that keep no whole context: the blocks are the limit
    ],
)
def test_the_cache_of_a_hybrid_model_holds_what_vllm_states(stated: dict[str, int], tokens: int) -> None:
    assert kv_cache_tokens(SimpleNamespace(block_size=16, num_gpu_blocks=4, **stated)) == tokens


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
