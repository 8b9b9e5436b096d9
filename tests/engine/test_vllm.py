"""What of the vLLM engine can be tested without vLLM: its arguments, environment, and where messages end."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest
from pydantic import ValidationError

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.protocol import Request, Sampling
from magpie_ray.engine.vllm import args
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.engine.vllm.engine import VllmEngine, ids_without_ending
from magpie_ray.engine.vllm.stats import StepCounter
from magpie_ray.errors import ConfigError, EngineError
from magpie_ray.utils.redaction import secrets_of


def settings(device: str = "cuda", *, first_tokens: bool = False, **engine: Any) -> VllmSettings:
    return VllmSettings(
        engine=EngineConfig(**engine),
        model="m",
        revision="abc",
        device=device,
        seed=7,
        first_tokens=first_tokens,
    )


def arguments(device: str = "cuda", **changes: Any) -> Mapping[str, Any]:
    return args.engine_args(settings(device, **changes))


def test_the_same_revision_is_asked_for_model_and_tokenizer() -> None:
    assert arguments()["revision"] == arguments()["tokenizer_revision"] == "abc"


def test_the_models_own_generation_config_decides_nothing() -> None:
    assert arguments()["generation_config"] == "vllm"


def test_memory_is_a_matter_of_gpus_and_vllm_chooses_the_batch_there() -> None:
    assert arguments(gpu_memory_utilization=0.9)["gpu_memory_utilization"] == 0.9
    assert arguments()["max_num_seqs"] is None
    assert arguments()["dtype"] == "auto"
    assert "gpu_memory_utilization" not in arguments("cpu")


def test_on_cpu_prefixes_are_cached_in_small_blocks_unless_told_otherwise() -> None:
    assert arguments("cpu")["block_size"] == 32
    assert arguments("cpu", extra={"block_size": 64})["block_size"] == 64
    assert "block_size" not in arguments("cuda")


def test_on_cpu_the_batch_is_small_and_numbers_are_float32_unless_told_otherwise() -> None:
    assert (arguments("cpu")["max_num_seqs"], arguments("cpu")["dtype"]) == (128, "float32")
    told = arguments("cpu", max_num_seqs=4, dtype="bfloat16")
    assert (told["max_num_seqs"], told["dtype"]) == (4, "bfloat16")


def test_the_processor_of_first_tokens_is_installed_only_where_it_is_wanted() -> None:
    mine = "my.module:Processor"
    assert "logits_processors" not in arguments()
    assert arguments(extra={"logits_processors": [mine]})["logits_processors"] == [mine]
    module, _, name = arguments(first_tokens=True)["logits_processors"][0].partition(":")  # type: ignore[index]
    assert (module, name) == ("magpie_ray.engine.vllm.logits_processor", "FirstTokensProcessor")
    both = arguments(first_tokens=True, extra={"logits_processors": [mine]})["logits_processors"]
    assert both == [mine, f"{module}:{name}"]


def test_first_tokens_take_the_model_runner_that_has_their_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    args.set_environment("cuda")
    assert "VLLM_USE_V2_MODEL_RUNNER" not in os.environ
    args.set_environment("cuda", first_tokens=True)
    assert os.environ["VLLM_USE_V2_MODEL_RUNNER"] == "0"
    monkeypatch.setattr(os, "environ", {"VLLM_USE_V2_MODEL_RUNNER": "1"})
    args.set_environment("cuda")
    with pytest.raises(ConfigError, match=r"VLLM_USE_V2_MODEL_RUNNER is set to 1 on .* unset it"):
        args.set_environment("cuda", first_tokens=True)


def test_extra_arguments_are_passed_as_they_are() -> None:
    extra = {"enforce_eager": False, "max_num_batched_tokens": 8192}
    assert extra.items() <= arguments("cpu", extra=extra).items()


@dataclass
class FewArgs:
    model: str
    block_size: int


def test_an_extra_argument_that_vllm_does_not_have_is_refused_by_name() -> None:
    args.check_extra({"block_size": 16}, FewArgs)
    with pytest.raises(ConfigError, match=r"engine\.extra has a_typo, blocksize, which"):
        args.check_extra({"blocksize": 16, "a_typo": 1, "block_size": 16}, FewArgs)


@pydantic.dataclasses.dataclass
class CheckedArgs:
    hf_token: bool
    block_size: int


def test_a_value_that_vllm_refuses_is_named_and_not_shown() -> None:
    with pytest.raises(ValidationError) as caught:
        CheckedArgs(hf_token={"x": "secret" * 20}, block_size="secret")  # type: ignore[arg-type]
    refusal = args.refusal(caught.value)
    assert "engine.extra: hf_token: Input should be a valid boolean; block_size: Input should" in refusal
    assert "secret" not in refusal


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


def test_the_users_own_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_LOGGING_LEVEL": "DEBUG"})
    args.set_environment("cpu")
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


def test_cpu_settings_are_not_made_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    args.set_environment("cuda")
    assert not any(name.startswith("VLLM_CPU") for name in os.environ)


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
