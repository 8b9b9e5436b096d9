"""The length of a model's context, as vLLM works it out from the model's config."""

from collections.abc import Iterator, Mapping
from typing import Any

from magpie_ray.model.resolve import Model

# Fields that state a length in tokens. vLLM takes the smallest.
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
# Kinds of scaled position embeddings whose stated length is the scaled one.
_STATED_SCALED = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling")


def context_length(model: Model, *, trust_remote_code: bool = False) -> int | None:
    """Tokens that a sequence of this model may have. None where its config does not say it.

    That is so, too, for an architecture that transformers does not know.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig  # slow to import

    try:
        config = AutoConfig.from_pretrained(
            model.location, revision=model.revision, trust_remote_code=trust_remote_code
        )
        text = config.get_text_config()
        scale = _scale(text)
    except (OSError, LookupError, TypeError, ValueError, AttributeError, ImportError, StrictDataclassError):
        return None
    stated = {
        name: value for name in _LENGTHS if type(value := getattr(text, name, None)) is int and value > 0
    }
    if not stated:
        return None
    return int(stated.get("model_max_length", min(stated.values())) * scale)


def may_change_context(overrides: object) -> bool:
    """Whether these overrides of a model's config may change the length of its context."""
    if not isinstance(overrides, Mapping):
        return True
    return any(
        name in _LENGTHS or "rope" in str(name) or isinstance(value, Mapping)
        for name, value in overrides.items()
    )


def _scale(text: Any) -> float:
    """By how much the position embeddings are stretched beyond the stated length."""
    if "gemma3" in str(text.model_type):  # states the scaled length
        return 1.0
    scale = 1.0
    for rope in _rope_parameters(getattr(text, "rope_parameters", None)):
        if rope.get("rope_type", "default") not in _STATED_SCALED:
            scale = float(rope.get("factor") or 1.0)
    return scale


def _rope_parameters(value: object) -> Iterator[Mapping[str, Any]]:
    """The parameters of each kind of layer."""
    if isinstance(value, Mapping):
        nested = [item for item in value.values() if isinstance(item, Mapping)]
        yield from nested or [value]
