"""Tokenizers, loaded from a folder or from Hugging Face.

Owns: what can go wrong while a tokenizer is loaded, and the remedy for each case. Importing this module
imports nothing heavy.
"""

import json
from functools import partial
from typing import Any, NamedTuple

from magpie_ray.errors import ModelError
from magpie_ray.model.mistral_tokenizer import MistralTokenizer, is_mistral_common


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and the end-of-sequence ids in its model's generation_config.json."""

    tokenizer: Any
    eos_token_ids: tuple[int, ...]


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> LoadedTokenizer:
    """The tokenizer of a local folder or a Hugging Face id; without network, from the cache.

    Raises ModelError, which names the model and the remedy, when the tokenizer can't be loaded.
    """
    # These imports take seconds, and load torch where it is installed.
    from transformers import AutoTokenizer
    from transformers.utils.hub import cached_file

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
        find = partial(cached_file, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        config = find("generation_config.json")
        processor_template = (
            find("chat_template.json") if not getattr(tokenizer, "chat_template", None) else None
        )
    except (OSError, ValueError, LookupError, ImportError, AttributeError, TypeError) as exc:
        raise ModelError(f"The tokenizer of model {name!r} can't be loaded: {_remedy(exc)}") from exc
    if is_mistral_common(tokenizer):
        tokenizer = MistralTokenizer(tokenizer)
    if processor_template:  # models that read images keep the chat template there
        with open(processor_template, encoding="utf-8") as file:
            tokenizer.chat_template = json.load(file).get("chat_template")
    return LoadedTokenizer(tokenizer, _eos_token_ids(config))


def _eos_token_ids(config: str | None) -> tuple[int, ...]:
    if config is None:
        return ()
    with open(config, encoding="utf-8") as file:
        ids = json.load(file).get("eos_token_id")
    return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)


def _remedy(exc: Exception) -> str:
    reason = str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__
    if "trust_remote_code" in str(exc):
        return f"{reason} Set model.trust_remote_code: true if you trust the code in that repository."
    if isinstance(exc, ImportError):
        return f"{reason} Install what is missing."
    return (
        f"{reason} Check model.name (a Hugging Face id or an existing folder with tokenizer files), "
        "model.revision, access (HF_TOKEN for gated models) and the network; offline, only local folders and "
        "models in the cache can be used."
    )
