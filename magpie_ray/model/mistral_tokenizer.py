"""The adapter of mistral-common's tokenizers.

Invariant: text and ids of a dialogue are those of mistral-common itself. Importing this module imports
nothing heavy.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any


class MistralTokenizer:
    """A tokenizer of mistral-common with the methods of a Hugging Face tokenizer that this project uses.

    mistral-common has rules instead of a chat template. `chat_template` names them: the variables that they
    take, with their values, and the markers of reasoning.
    reasons_on_demand: only the words of a prompt ask for reasoning, and nothing in the rules does.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._rules = backend.tokenizer
        rules = self._rules.instruct_tokenizer
        settings = getattr(rules.tokenizer, "model_settings_builder", None)
        effort = None if settings is None else settings.reasoning_effort
        efforts = [] if effort is None else [str(value) for value in effort.values]
        thinks = getattr(rules, "BEGIN_THINK", None) is not None
        self.reasons_on_demand = thinks and not efforts
        self.chat_template = "; ".join(
            [
                f"mistral-common, {type(rules).__name__}",
                *([f"reasoning_effort is one of {', '.join(map(repr, efforts))}"] if efforts else []),
                *(["reasoning in [THINK] and [/THINK]"] if thinks else []),
            ]
        )
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
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        **variables: Any,
    ) -> str | list[int]:
        """The text or the ids of a dialogue. Variables that the rules do not know have no effect.

        Raises ValueError where the rules refuse the dialogue or the value of a variable.
        """
        from mistral_common.exceptions import MistralCommonException
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy

        known = {
            name: value for name, value in variables.items() if name in ChatCompletionRequest.model_fields
        }
        # The rules take an answer at the end only as one to be continued, without its end.
        answered = messages[-1]["role"] == "assistant"
        try:
            request = ChatCompletionRequest.from_openai(
                messages=list(messages), continue_final_message=answered, **known
            )
            ids: list[int] = self._rules.encode_chat_completion(request).tokens
        except (MistralCommonException, AssertionError) as exc:
            raise ValueError(str(exc)) from exc
        if answered:
            ids = [*ids, self.eos_token_id]
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

    def __len__(self) -> int:
        size: int = self._rules.instruct_tokenizer.tokenizer.n_words
        return size

    def decode(self, ids: Sequence[int]) -> str:
        """The text, control tokens kept."""
        return self.batch_decode([list(ids)])[0]

    def batch_decode(self, messages: Sequence[Sequence[int]], **_: Any) -> list[str]:
        """The texts, control tokens kept."""
        texts: list[str] = self._backend.batch_decode(messages, skip_special_tokens=False)
        return texts
