"""How large models are, against published counts."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from magpie_ray.errors import ModelError
from magpie_ray.model.resolve import Model, resolve_model
from magpie_ray.model.size import ModelSize, read_model_size

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "torch_dtype": "bfloat16",
    "max_position_embeddings": 131072,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
QWEN_30B_A3B = LLAMA_8B | {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "vocab_size": 151936,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
}
DEEPSEEK_LIKE = LLAMA_8B | {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "num_hidden_layers": 61}


def folder(path: Path, config: dict[str, Any], **files: object) -> Model:
    (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(json.dumps(content))
    return resolve_model(str(path), None)


def size_of(model: Model, **given: Any) -> ModelSize:
    return read_model_size(model, **{"dtype": "auto", "quantization": None, "cache_dtype": "auto"} | given)


@pytest.mark.parametrize(
    ("config", "billions", "active", "cache_kib"),
    [(LLAMA_8B, 8.03, 8.03, 128), (LLAMA_70B, 70.6, 70.6, 320), (QWEN_30B_A3B, 30.5, 3.3, 96)],
)
def test_published_counts_come_out(
    tmp_path: Path, config: dict[str, Any], billions: float, active: float, cache_kib: float
) -> None:
    size = size_of(folder(tmp_path, config))
    assert size.parameters / 1e9 == pytest.approx(billions, rel=0.01)
    assert size.active_parameters / 1e9 == pytest.approx(active, rel=0.02)
    assert size.cache_bytes_per_token() == cache_kib * 1024
    assert "config.json" in size.source


def test_heads_are_shared_out_until_each_gpu_has_one_and_a_latent_is_on_all(tmp_path: Path) -> None:
    size = size_of(folder(tmp_path, LLAMA_8B))
    each = [size.cache_bytes_per_token(tensor_parallel=n) / 1024 for n in (1, 2, 8, 16)]
    assert each == [128, 64, 16, 16]
    assert size.cache_bytes_per_token(pipeline_parallel=4) == 32 * 1024
    latent = size_of(folder(tmp_path, DEEPSEEK_LIKE))
    assert latent.cache_bytes_per_token() == latent.cache_bytes_per_token(tensor_parallel=8) == 61 * 576 * 2


@pytest.mark.parametrize(
    ("given", "weight", "cache"),
    [
        ({}, 2, 2),
        ({"dtype": "float32"}, 4, 4),
        ({"quantization": "fp8"}, 1, 2),
        ({"quantization": "awq_marlin"}, 0.56, 2),
        ({"cache_dtype": "fp8_e4m3"}, 2, 1),
    ],
)
def test_bytes_follow_dtype_and_quantization(
    tmp_path: Path, given: dict[str, Any], weight: float, cache: float
) -> None:
    size = size_of(folder(tmp_path, LLAMA_8B), **given)
    assert (size.parameter_bytes, size.cache_bytes) == (weight, cache)


def test_a_checkpoint_that_is_quantised_says_so(tmp_path: Path) -> None:
    config = LLAMA_8B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    assert size_of(folder(tmp_path, config)).parameter_bytes == 0.56


def test_the_index_of_the_weights_counts_more_than_arithmetic(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 18_000_000_000}}
    size = size_of(folder(tmp_path, LLAMA_8B, model__safetensors__index__json=index))
    assert size.parameters == 9e9
    assert size.active_parameters == pytest.approx(9e9)
    assert "index" in size.source


def test_the_header_of_a_single_file_is_enough(tmp_path: Path) -> None:
    weights = {"a": numpy.zeros([10, 20], "float32"), "b": numpy.zeros([5], "float16")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert size_of(folder(tmp_path, LLAMA_8B)).parameters == 205


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no header at all")
    with pytest.raises(ModelError, match=r"model\.safetensors can't be read"):
        size_of(folder(tmp_path, LLAMA_8B))


def test_the_bundled_model_is_counted() -> None:
    size = size_of(resolve_model("builtin:tiny-chat", None))
    assert 1.5e6 < size.parameters < 2.5e6


def test_the_text_part_of_a_multimodal_model_counts(tmp_path: Path) -> None:
    size = size_of(folder(tmp_path, {"model_type": "x", "text_config": LLAMA_8B}))
    assert size.parameters / 1e9 == pytest.approx(8.03, rel=0.01)


def test_a_model_that_does_not_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not say how large it is \('num_hidden_layers'\)"):
        size_of(folder(tmp_path, {"model_type": "mystery"}))
