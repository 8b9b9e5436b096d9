"""What the configs of all jobs share: checks that several make, parts of their identity, what is recorded.

A job is `generate` or a pass (`answer`, `score`). Each has a config of its own keys; sections are the same.
"""

from collections.abc import Mapping
from typing import Any, Literal

from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.engine_extra import identity_of, speculation_of
from magpie_ray.config.problems import bad_value
from magpie_ray.config.sampling import SamplingConfig
from magpie_ray.config.sections import EngineConfig, ModelConfig
from magpie_ray.types import Role
from magpie_ray.utils.redaction import redact_all, redact_secrets

SeedValue = int | Literal["auto"]


def seed_number(seed: SeedValue) -> int:
    """The seed. `auto` counts as 0 until a build begins, which draws a seed (preflight.target)."""
    return 0 if seed == "auto" else seed


def check_room(engine: EngineConfig, sampling: SamplingConfig, roles: tuple[Role, ...]) -> None:
    """BadValueError, of the field `engine`, where the engine can't serve the sampling of these roles."""
    room = engine.max_model_len
    for role in roles:
        if room is not None and (max_tokens := sampling.max_tokens(role)) >= room:
            phrase = f"more than sampling.{role}.max_tokens, which is {max_tokens}: a message needs room"
            raise bad_value(room, f"{phrase} beside its prompt", at=("max_model_len",))
        if (name := speculation_of(engine.extra)) and any(
            settings.needs_logit_biases for settings, _ in sampling.mix(role)
        ):
            phrase = (
                "left out: under speculative decoding vLLM takes no logit biases, which "
                f"sampling.{role}.first_tokens needs for penalties, and for bans of greedy messages"
            )
            raise bad_value(engine.extra[name], phrase, at=("extra", name))


def check_reasoning(sampling: SamplingConfig, model: ModelConfig | None) -> None:
    """BadValueError, of the field `sampling`, where answers begin with reasoning and have rules for that."""
    for settings, _ in sampling.mix("assistant"):
        if settings.first_tokens.is_active and model is not None and model.thinking:
            phrase = "left out with model.thinking: true, where answers begin with their reasoning"
            value = settings.first_tokens.model_dump(exclude_defaults=True)
            raise bad_value(value, phrase, at=("assistant", "first_tokens"))


def model_identity(model: ModelConfig) -> dict[str, object]:
    """The part of the fingerprint that the keys of the model are, by dotted key.

    Left out are model.revision, because the commit that it resolves to is covered; model.trust_remote_code, a
    permission (the code comes with the commit, and its effect on prompts shows in the chat format); and
    model.chat_template_name, whose effect is the chat format.
    """
    return {
        "model.name": model.name,
        "model.pre_query_template": model.pre_query_template,
        "model.chat_format": model.chat_format,
        "model.thinking": model.thinking,
    }


def engine_identity(engine: EngineConfig) -> dict[str, object]:
    """The same of the engine. Device, memory and parallelism may change: a resume may run elsewhere."""
    return {
        "engine.dtype": engine.dtype,
        "engine.quantization": engine.quantization,
        "engine.max_model_len": engine.max_model_len,
        **{f"engine.extra.{name}": value for name, value in identity_of(engine.extra).items()},
    }


def acceptance_identity(acceptance: AcceptanceConfig, *, turns: int) -> dict[str, object]:
    """The same of the acceptance rules.

    Left out are max_attempts and min_accept_rate, which decide when to give up and change no row, and
    rejects_per_reason.
    """
    return {
        "acceptance.truncated_response": acceptance.truncated_response,
        "acceptance.context_full": acceptance.context_full,
        **{f"acceptance.rules.{name}": value for name, value in acceptance.rules.model_dump().items()},
        "acceptance.custom": [[path, thresholds] for path, thresholds in acceptance.custom_rules],
        # With one turn there is no other place to continue from.
        "acceptance.retry_from": acceptance.retry_from if turns > 1 else "start",
    }


def without_secrets(data: dict[str, Any], engine_extra: Mapping[str, Any]) -> dict[str, Any]:
    """A dumped config as build.json records it. The storage options of all of its places are hidden."""
    data["engine"]["extra"] = redact_secrets(engine_extra)
    for section in data.values():
        if isinstance(section, dict) and "storage_options" in section:
            section["storage_options"] = redact_all(section["storage_options"])
    return data
