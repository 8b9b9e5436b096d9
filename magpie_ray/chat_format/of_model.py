"""The chat format of a loaded model: derived, or by the user's own function.

Owns: what the rest of the model says about the format: broken side files, and the ids that the model has.
"""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from magpie_ray.chat_format.custom import custom_format
from magpie_ray.chat_format.derivation import derive
from magpie_ray.chat_format.encoder import Encoder
from magpie_ray.chat_format.format import ChatFormat, SystemPrefix
from magpie_ray.chat_format.prefixes import PrefixMaker
from magpie_ray.errors import FormatError
from magpie_ray.model.tokenizer import LoadedTokenizer


def model_format(
    loaded: LoadedTokenizer, *, own_format: str | None, pre_query_template: str | None = None, **build: Any
) -> ChatFormat:
    """The format by the function `own_format`, or derived. Its warnings begin with those of the tokenizer.

    build: arguments of both `custom_format` and `derive`.
    """
    try:
        if own_format is not None:
            form = custom_format(own_format, loaded.tokenizer, eos_token_ids=loaded.eos_token_ids, **build)
        else:
            form = derive(
                loaded.tokenizer,
                pre_query_template=pre_query_template,
                eos_token_ids=loaded.eos_token_ids,
                **build,
            )
    except FormatError as exc:
        if not loaded.warnings:
            raise
        # A broken file may be why: the template may lie in it.
        raise FormatError(f"{exc} (broken files of the model: {'; '.join(loaded.warnings)})") from exc
    if loaded.vocabulary is not None:
        form = _within(loaded.vocabulary, form, loaded.tokenizer)
    return replace(form, warnings=(*loaded.warnings, *form.warnings))


class Prefixes:
    """Prefixes of system prompts that the format was not derived with, by PrefixMaker or the user's function.

    form: the format as `model_format` made it with the same arguments.
    """

    def __init__(
        self,
        loaded: LoadedTokenizer,
        form: ChatFormat,
        *,
        own_format: str | None,
        pre_query_template: str | None = None,
        thinking: bool | None = None,
    ) -> None:
        self._loaded, self._form = loaded, form
        self._own_format, self._thinking = own_format, thinking
        self._maker: PrefixMaker | None = None
        self._lacking = _added_tokens_beyond(loaded)
        self._refusal = ""
        if pre_query_template is not None:
            self._refusal = (
                "model.pre_query_template is all the text before the user's, so a system prompt has no place "
                "beside it"
            )
        elif own_format is None:
            self._maker = PrefixMaker.of(loaded.tokenizer, form, thinking=thinking)
        elif not form.system_prefixes:
            self._refusal = (
                f"{own_format} (model.chat_format) gave a format without a system prompt: let the function "
                "take system_prompts and hand them on to derive"
            )

    @property
    def refuses_none(self) -> str:
        """Why a row without a system prompt is refused; "" where it is not."""
        return self._maker.refuses_none if self._maker else ""

    def of(self, prompts: Sequence[str]) -> list[SystemPrefix]:
        """The prefix of each prompt. FormatError or ConfigError for one that is not taken."""
        if self._refusal and prompts:
            raise FormatError(self._refusal)
        self._check_tokens(prompts)
        if self._maker:
            return [self._maker.prefix(prompt) for prompt in prompts]
        form = self._made_with(prompts)
        return [form.start(prompt) for prompt in prompts]

    def check(self, prompts: Sequence[str]) -> None:
        """Raises what `of` would raise for these prompts."""
        if self._maker and not self._refusal:
            self._check_tokens(prompts)
            self._maker.check(prompts)
        else:
            self.of(prompts)

    def _check_tokens(self, prompts: Sequence[str]) -> None:
        for text, token_id in self._lacking.items():
            if any(text in prompt for prompt in prompts):
                raise _lacks_token("The system prompt", text, token_id, self._loaded.vocabulary)

    def _made_with(self, prompts: Sequence[str]) -> ChatFormat:
        """The user's format with these prompts."""
        date = datetime.date.fromisoformat(self._form.date) if self._form.date else None
        return model_format(
            self._loaded,
            own_format=self._own_format,
            system_prompts=list(dict.fromkeys(prompts)),
            date=date,
            thinking=self._thinking,
        )


def _added_tokens_beyond(loaded: LoadedTokenizer) -> dict[str, int]:
    """Added tokens of the tokenizer that the model does not have, by their text."""
    if loaded.vocabulary is None:
        return {}
    markers = Encoder(loaded.tokenizer).markers.items()
    return {text: token_id for token_id, text in markers if token_id >= loaded.vocabulary}


def _lacks_token(what: str, text: str, token_id: int, vocabulary: int | None) -> FormatError:
    return FormatError(
        f"{what} has the token {text!r}, id {token_id}, and the model has only the ids below "
        f"{vocabulary} (vocab_size in config.json): the tokenizer is that of another model, or tokens were "
        "added to it and not to the model."
    )


def _within(vocabulary: int, form: ChatFormat, tokenizer: Any) -> ChatFormat:
    """The format without stop ids that the model does not have. FormatError for such ids in prompts."""
    texts = (
        *(form.pre_query_ids, form.user_to_assistant_ids, form.history_user_to_assistant_ids),
        *(form.next_user_ids, *(prefix.ids for prefix in form.system_prefixes)),
    )
    missing = next((i for ids in texts for i in ids if i >= vocabulary), None)
    if missing is not None:
        raise _lacks_token("The chat format", tokenizer.convert_ids_to_tokens(missing), missing, vocabulary)
    stops = (*form.user_stop_token_ids, *form.assistant_stop_token_ids)
    foreign = dict.fromkeys(i for i in stops if i >= vocabulary)
    if not foreign:
        return form
    left_out = ", ".join(map(str, foreign))
    return replace(
        form,
        user_stop_token_ids=tuple(i for i in form.user_stop_token_ids if i not in foreign),
        assistant_stop_token_ids=tuple(i for i in form.assistant_stop_token_ids if i not in foreign),
        warnings=(
            *form.warnings,
            f"Left out as ends of messages: the ids {left_out}, which the model does not have (vocab_size in "
            f"config.json is {vocabulary}).",
        ),
    )
