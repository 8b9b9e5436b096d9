"""Tokenizers of mistral-common, which have rules instead of a chat template, with the face of others.

Owns: the text of a dialogue with its control tokens, and the ids of such a text. Invariant: text and ids of a
dialogue are those of mistral-common itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def is_mistral_common(tokenizer: Any) -> bool:
    """Whether transformers loaded mistral-common's tokenizer, as it does for a model with a tekken.json."""
    return hasattr(tokenizer, "tokenizer") and type(tokenizer).__name__.startswith("MistralCommon")


class MistralTokenizer:
    """A tokenizer of mistral-common with the methods of a Hugging Face tokenizer that this project uses."""

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
