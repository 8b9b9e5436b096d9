"""How messages are sampled: one setting for each role, or several with weights that rows choose from.

Owns: the keys under `sampling`, and what they mean for a build's identity.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Discriminator, Tag

from magpie_ray import config_fields as fields
from magpie_ray.config_errors import NO_KEY, BadValueError, Problem, bad_value
from magpie_ray.config_first_tokens import FirstTokensConfig
from magpie_ray.config_section import Section
from magpie_ray.types import ROLES, Role


class SamplingSettings(Section):
    """How one kind of message is sampled, in vLLM's names. The defaults from top_k on change nothing."""

    temperature: fields.Temperature = 1.0
    top_p: fields.Share = 1.0
    max_tokens: fields.Count = 512
    top_k: fields.TopK = 0
    min_p: fields.MinP = 0.0
    repetition_penalty: fields.Positive = 1.0
    presence_penalty: fields.Penalty = 0.0
    frequency_penalty: fields.Penalty = 0.0
    first_tokens: FirstTokensConfig = FirstTokensConfig()


class UserSettings(SamplingSettings):
    """The user's messages may be cut at their first line break, as answers never are."""

    first_line_only: fields.Flag = False


class AssistantSampling(SamplingSettings):
    """The paper's answers are greedy, and longer than its questions."""

    temperature: fields.Temperature = 0.0
    max_tokens: fields.Count = 1024


class WeightedSampling(UserSettings):
    """One of several settings that rows choose from. Weights are given to all of them or to none."""

    weight: fields.Weight | None = None


class WeightedAssistantSampling(AssistantSampling):
    """The same, for answers."""

    weight: fields.Weight | None = None


def _one_or_mix(value: object) -> str:
    return f"{NO_KEY}mix" if isinstance(value, list) else f"{NO_KEY}one"


def _check_mix(mix: list[Any]) -> list[Any]:
    if not mix:
        raise bad_value(mix, "a mapping, or a list of at least one")
    unweighted = [index for index, choice in enumerate(mix) if choice.weight is None]
    if 0 < len(unweighted) < len(mix):
        # A silent weight of 1 among shares that sum to one would drown them.
        problem = Problem(at=(str(unweighted[0]), "weight"), value=None, must="must be given, as others have")
        raise BadValueError(problem)
    return mix


UserSampling: TypeAlias = Annotated[
    Annotated[UserSettings, Tag(f"{NO_KEY}one")]
    | Annotated[list[WeightedSampling], AfterValidator(_check_mix), Tag(f"{NO_KEY}mix")],
    Discriminator(_one_or_mix),
]
AnswerSampling: TypeAlias = Annotated[
    Annotated[AssistantSampling, Tag(f"{NO_KEY}one")]
    | Annotated[list[WeightedAssistantSampling], AfterValidator(_check_mix), Tag(f"{NO_KEY}mix")],
    Discriminator(_one_or_mix),
]


class SamplingConfig(Section):
    """User and assistant messages are sampled apart: varied questions, careful answers.

    Each is one setting, or a list of settings with weights that rows choose from.
    """

    user: UserSampling = UserSettings()
    assistant: AnswerSampling = AssistantSampling()
    reproducible: fields.Flag = False

    def mix(self, role: Role) -> tuple[tuple[SamplingSettings, float], ...]:
        """The settings that rows choose from for messages of the role, with weights that sum to one."""
        given: SamplingSettings | Sequence[WeightedSampling | WeightedAssistantSampling] = getattr(self, role)
        if isinstance(given, SamplingSettings):
            return ((given, 1.0),)
        weights = [choice.weight or 1.0 for choice in given]
        total = math.fsum(weights)
        return tuple((choice, weight / total) for choice, weight in zip(given, weights, strict=True))

    def max_tokens(self, role: Role) -> int:
        """The most that a message of the role may have."""
        return max(settings.max_tokens for settings, _ in self.mix(role))

    @property
    def uses_first_tokens(self) -> bool:
        """Whether any message's beginning is banned, penalised, or has a temperature of its own."""
        return any(settings.first_tokens.resolved() for role in ROLES for settings, _ in self.mix(role))

    @property
    def is_mixed(self) -> bool:
        """Whether rows say which settings they were made with, in `sampling_key`."""
        return len(self.mix("user")) * len(self.mix("assistant")) > 1

    def identity(self) -> dict[str, object]:
        """The part of the fingerprint, by dotted key. One setting in a list is that setting."""
        flat: dict[str, object] = {"sampling.reproducible": self.reproducible}
        for role in ROLES:
            choices = [
                (settings.model_dump(exclude={"weight"}), float(f"{weight:.12g}"))
                for settings, weight in self.mix(role)
            ]
            if len(choices) == 1:
                flat |= by_dotted_key(f"sampling.{role}", choices[0][0])
            else:
                flat[f"sampling.{role}"] = [settings | {"weight": weight} for settings, weight in choices]
        return flat


def by_dotted_key(prefix: str, values: Mapping[str, Any]) -> dict[str, object]:
    """What nested mappings hold, by the path that leads there."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        flat |= by_dotted_key(key, value) if isinstance(value, dict) else {key: value}
    return flat
