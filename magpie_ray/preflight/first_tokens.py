"""What of sampling.*.first_tokens can't be applied with a model, before anything starts."""

from typing import Any

from magpie_ray.chat_format import ChatFormat
from magpie_ray.config.fields import MAX_TEMPERATURE
from magpie_ray.config.loading import WritingConfig
from magpie_ray.engine.first_tokens import FirstTokenTable
from magpie_ray.engine.token_bytes import token_bytes
from magpie_ray.errors import ConfigError
from magpie_ray.types import ROLES


def check_first_tokens(config: WritingConfig, form: ChatFormat, tokenizer: Any) -> None:
    """ConfigError or FormatError when sampling.*.first_tokens can't be applied with this tokenizer."""
    if not config.sampling.uses_first_tokens:
        return
    vocabulary = token_bytes(tokenizer)
    ends = {"user": form.user_stop_token_ids, "assistant": form.assistant_stop_token_ids}
    for role in ROLES:
        for settings, _ in config.sampling.mix(role):
            try:
                if settings.first_tokens.is_active:
                    FirstTokenTable(settings.first_tokens, vocabulary, ends=ends[role])
            except ConfigError as exc:
                raise ConfigError(f"sampling.{role}.{exc}") from None


def of_hot_first_tokens(config: WritingConfig) -> list[str]:
    """Warnings of temperatures of first tokens that vLLM does not take."""
    heats = [
        (role, settings.first_tokens.temperature or 0.0)
        for role in ROLES
        for settings, _ in config.sampling.mix(role)
    ]
    return [
        f"sampling.{role}.first_tokens.temperature is {heat:g}: vLLM takes at most {MAX_TEMPERATURE:g}, so "
        f"the first tokens are sampled at {MAX_TEMPERATURE:g}"
        for role, heat in dict.fromkeys(heats)
        if heat > MAX_TEMPERATURE
    ]
