"""Tokenizers, loaded from a folder or from Hugging Face.

Owns: what can go wrong while a tokenizer is loaded, with the remedy for each case, and the adapter of
mistral-common's tokenizers. Importing this module imports nothing heavy. Invariant: text and ids of a
dialogue are those of mistral-common itself.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from magpie_ray.errors import ModelError


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
    # transformers loads mistral-common's tokenizer for a model with a tekken.json.
    if hasattr(tokenizer, "tokenizer") and type(tokenizer).__name__.startswith("MistralCommon"):
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


class MistralTokenizer:
    """A tokenizer of mistral-common with the methods of a Hugging Face tokenizer that this project uses.

    mistral-common has rules instead of a chat template.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._rules = backend.tokenizer
        self.chat_template = f"mistral-common, {type(self._rules.instruct_tokenizer).__name__}"
        self.eos_token_id: int = backend.eos_token_id
        self.bos_token_id: int = backend.bos_token_id
        self.all_special_ids: list[int] = backend.all_special_ids
        self.added_tokens_decoder: Mapping[int, Any] = {}
        self.convert_ids_to_tokens = backend.convert_ids_to_tokens
        self.convert_tokens_to_ids = backend.convert_tokens_to_ids
        self.get_vocab = backend.get_vocab
        names = backend.convert_ids_to_tokens(self.all_special_ids)
        self._control = dict(zip(names, self.all_special_ids, strict=True))
        longest_first = sorted(self._control, key=len, reverse=True)
        self._controls = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **_: Any
    ) -> str | list[int]:
        """The text or the ids of a dialogue. Raises ValueError where the rules refuse the dialogue."""
        from mistral_common.exceptions import MistralCommonException
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy

        try:
            request = ChatCompletionRequest.from_openai(messages=list(messages))
            ids: list[int] = self._rules.encode_chat_completion(request).tokens
        except MistralCommonException as exc:
            raise ValueError(str(exc)) from exc
        if tokenize:
            return ids
        return str(self._rules.decode(ids, special_token_policy=SpecialTokenPolicy.KEEP))

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        """Ids of a text. Control tokens in the text are recognised; none is added."""
        plain = self._rules.instruct_tokenizer.tokenizer
        ids = list[int]()
        for piece in self._controls.split(text):
            if piece in self._control:
                ids.append(self._control[piece])
            elif piece:
                ids += plain.encode(piece, bos=False, eos=False)
        return {"input_ids": ids}

    def decode(self, ids: Sequence[int]) -> str:
        """The text, control tokens kept."""
        return self.batch_decode([list(ids)])[0]

    def batch_decode(self, messages: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """The texts, control tokens kept."""
        texts: list[str] = self._backend.batch_decode(messages, skip_special_tokens=False)
        return texts
