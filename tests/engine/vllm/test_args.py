"""The arguments and the environment of vLLM, tested without vLLM."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pydantic
import pytest
from pydantic import ValidationError

from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.vllm import args
from magpie_ray.engine.vllm.args import VllmSettings
from magpie_ray.errors import ConfigError


def settings(device: str = "cuda", **engine: Any) -> VllmSettings:
    return VllmSettings(engine=EngineConfig(**engine), model="m", revision="abc", device=device, seed=7)


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


@pytest.mark.parametrize(
    ("device", "seeded", "given"), [("cpu", True, False), ("cpu", False, None), ("cuda", True, None)]
)
def test_on_cpu_prompts_of_requests_with_seeds_are_read_whole(
    device: str, seeded: bool, given: bool | None
) -> None:
    of_requests = dataclasses.replace(settings(device), seeded=seeded)
    assert args.engine_args(of_requests).get("enable_chunked_prefill") is given


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
