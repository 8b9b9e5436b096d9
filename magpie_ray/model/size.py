"""The size of a model: its parameters, the bytes of its weights, the bytes of KV cache for one token.

Owns: the arithmetic over config.json. Only headers and the index of weights are read, never weights. Where
neither is at hand, the number of parameters follows from config.json, and `source` says so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magpie_ray.errors import ModelError
from magpie_ray.model.resolve import Model
from magpie_ray.model.side_files import read_object

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "fp8": 1.0}
# Bytes of one quantised weight, scales included, by a part of the method's name.
_QUANTISED = {"fp8": 1.0, "int8": 1.0, "w8a8": 1.0, "mxfp4": 0.53, "fp4": 0.56, "awq": 0.56, "gptq": 0.56}
_QUANTISED |= {"bitsandbytes": 0.56, "compressed": 0.56, "gguf": 0.6}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """The size of a model on a GPU.

    active_parameters: parameters that one token uses (fewer than all in a mixture of experts).
    parameter_bytes: bytes of one parameter, as loaded. kv_heads, head_dim: of one layer.
    latent: numbers that a layer with MLA caches for a token instead of heads; 0 without MLA.
    cache_bytes: bytes of one cached number. max_tokens: length of the context.
    source: where the number of parameters comes from.
    """

    parameters: float
    active_parameters: float
    parameter_bytes: float
    layers: int
    kv_heads: int
    head_dim: int
    latent: int
    cache_bytes: float
    max_tokens: int | None
    source: str

    @property
    def weight_bytes(self) -> float:
        return self.parameters * self.parameter_bytes

    def cache_bytes_per_token(self, *, tensor_parallel: int = 1, pipeline_parallel: int = 1) -> float:
        """Bytes on one GPU. Each GPU has at least one KV head; every GPU has the whole latent."""
        heads = max(1.0, self.kv_heads / tensor_parallel)
        numbers = self.latent or 2 * heads * self.head_dim
        return math.ceil(self.layers / pipeline_parallel) * numbers * self.cache_bytes


def read_model_size(model: Model, *, dtype: str, quantization: str | None, cache_dtype: str) -> ModelSize:
    """The size of a model that vLLM loads with this dtype and quantization (keys of `engine`).

    Raises ModelError when config.json can't be read or lacks the sizes of a decoder.
    """
    path = _file(model, "config.json")
    if path is None:
        raise ModelError(f"{model.name} has no config.json, so its size is unknown")
    try:
        fields = _object(model, path)
        text = {**fields, **(fields.get("text_config") or {})}
        stored = str(text.get("dtype") or text.get("torch_dtype") or "bfloat16")
        loaded = _BYTES.get(stored, 2.0) if dtype == "auto" else _BYTES[dtype]
        if dtype == "auto" and stored == "float32":
            loaded = 2.0  # vLLM loads float32 weights as 16-bit floats
        method = quantization or str((text.get("quantization_config") or {}).get("quant_method") or "")
        layers, heads = int(text["num_hidden_layers"]), int(text["num_attention_heads"])
        kv_heads = int(text.get("num_key_value_heads") or heads)
        head_dim = int(text.get("head_dim") or text["hidden_size"] // heads)
        width = head_dim * (2 * heads + 2 * kv_heads)
        total, active = _parameters_by_config(text, layers=layers, attention_width=width)
        latent = int(text.get("kv_lora_rank") or 0)
        size = ModelSize(
            parameters=total,
            active_parameters=active,
            parameter_bytes=next((size for name, size in _QUANTISED.items() if name in method), loaded),
            layers=layers,
            kv_heads=kv_heads,
            head_dim=head_dim,
            latent=latent + int(text.get("qk_rope_head_dim") or 0) if latent else 0,
            cache_bytes=1.0 if "fp8" in cache_dtype else min(loaded, 4.0),
            max_tokens=int(text["max_position_embeddings"]) if "max_position_embeddings" in text else None,
            source="worked out from config.json",
        )
    except ModelError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as exc:
        raise ModelError(f"{model.name}: its config.json does not say how large it is ({exc})") from exc
    counted = None if method else _parameters_by_weights(model, stored)
    if counted is None:
        return size
    parameters, source = counted
    active = size.active_parameters * parameters / size.parameters
    return replace(size, parameters=parameters, active_parameters=active, source=source)


def _parameters_by_config(
    text: Mapping[str, Any], *, layers: int, attention_width: int
) -> tuple[float, float]:
    """All and active parameters of a usual decoder: attention, a gated MLP or experts, embeddings."""
    hidden, inner = int(text["hidden_size"]), int(text["intermediate_size"])
    experts = int(
        text.get("num_local_experts") or text.get("num_experts") or text.get("n_routed_experts") or 0
    )
    used = int(text.get("num_experts_per_tok") or 0)
    dense = 3 * hidden * inner
    all_mlp = active_mlp = float(dense * layers)
    if experts:
        expert = 3 * hidden * int(text.get("moe_intermediate_size") or inner)
        shared = int(text.get("n_shared_experts") or 0)
        first = int(text.get("first_k_dense_replace") or 0)
        all_mlp = float(first * dense + (layers - first) * (experts + shared) * expert)
        active_mlp = float(first * dense + (layers - first) * (used + shared) * expert)
    embeddings = int(text["vocab_size"]) * hidden * (1 if text.get("tie_word_embeddings") else 2)
    rest = float(hidden * attention_width * layers + embeddings)
    return rest + all_mlp, rest + active_mlp


def _parameters_by_weights(model: Model, stored: str) -> tuple[float, str] | None:
    """Parameters by the index or the header of the weights, and the source. None where neither is at hand."""
    if index := _file(model, _INDEX):
        metadata = _object(model, index).get("metadata")
        size = metadata.get("total_size") if isinstance(metadata, dict) else None
        if isinstance(size, int | float) and size > 0:
            return float(size) / _BYTES.get(stored, 2.0), f"the index of its weights ({_INDEX})"
    if model.is_folder:
        single = Path(model.location) / _SINGLE
        return (
            (_parameters_in(single), f"the header of its weights ({_SINGLE})") if single.is_file() else None
        )
    from huggingface_hub import HfApi  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        info = HfApi().model_info(model.name, revision=model.revision).safetensors
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):  # no network: config.json will do
        return None
    return (float(info.total), "the hub") if info else None


def _parameters_in(path: Path) -> float:
    """Parameters by the header of a safetensors file."""
    from safetensors import SafetensorError, safe_open  # imports numpy

    try:
        with safe_open(path, framework="numpy") as weights:
            shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
    except SafetensorError as exc:
        raise ModelError(f"{path} can't be read: {exc}") from exc
    return float(sum(map(math.prod, shapes)))


def _object(model: Model, path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except ModelError as exc:
        raise ModelError(
            f"{model.name}: {exc}. Mend the file, or copy it from the model's source again"
        ) from exc


def _file(model: Model, name: str) -> Path | None:
    """A small file of a model on this machine. None where the model lacks it or the hub can't be reached."""
    if model.is_folder:
        path = Path(model.location) / name
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.name, name, revision=model.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        return None
