"""mistral-common's tokenizers, which have rules in place of a chat template, as tokenizers that have one.

Owns: what such a tokenizer lacks to be derived from: text with control tokens in it, and its ids. What always
holds: the text of a dialogue is mistral-common's own, and the ids of that text are those that it gives.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def is_mistral_common(tokenizer: Any) -> bool:
    """Whether transformers has chosen mistral-common for a model, as it does where there is a tekken.json."""
    return hasattr(tokenizer, "tokenizer") and type(tokenizer).__name__.startswith("MistralCommon")


class MistralTokenizer:
    """A tokenizer of mistral-common, with what this project uses of any Hugging Face tokenizer."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._rules = backend.tokenizer
        self.chat_template = f"mistral-common, {type(self._rules.instruct_tokenizer).__name__}"
        self.eos_token_id: int = backend.eos_token_id
        self.bos_token_id: int = backend.bos_token_id
        self.all_special_ids: list[int] = backend.all_special_ids
        self.added_tokens_decoder: Mapping[int, Any] = {}
        names = backend.convert_ids_to_tokens(self.all_special_ids)
        self._control = dict(zip(names, self.all_special_ids, strict=True))
        longest_first = sorted(self._control, key=len, reverse=True)
        self._controls = re.compile(f"({'|'.join(map(re.escape, longest_first))})")

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], *, tokenize: bool, add_generation_prompt: bool, **_: Any
    ) -> str | list[int]:
        """The text or the ids of a dialogue. There are no variables. ValueError where the rules refuse it."""
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
        """Ids of a text; control tokens in it are recognised, none is added."""
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

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id, or those of several."""
        return self._backend.convert_ids_to_tokens(ids)

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or those of several."""
        return self._backend.convert_tokens_to_ids(tokens)

    def get_vocab(self) -> dict[str, int]:
        """Token -> id."""
        vocabulary: dict[str, int] = self._backend.get_vocab()
        return vocabulary
