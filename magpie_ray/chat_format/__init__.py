"""The chat format of a model."""

from magpie_ray.chat_format.derivation import (
    ChatFormat,
    LoadedTokenizer,
    SystemPrefix,
    derive,
    load_tokenizer,
    message_ids,
)

__all__ = ["ChatFormat", "LoadedTokenizer", "SystemPrefix", "derive", "load_tokenizer", "message_ids"]
