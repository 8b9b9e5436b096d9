"""How messages are sampled: one setting for each role, or several with weights that rows choose from.

Owns: the keys under `sampling`, and what they mean for a build's identity.
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, PlainValidator, Tag

from magpie_ray.config import fields
from magpie_ray.config.fields import Section
from magpie_ray.config.problems import NO_KEY, BadValueError, Problem, bad_value, show
from magpie_ray.types import ROLES, Role

_MAX_CHARACTERS = 100
_MAX_PENALTY = 100.0
_BEGINNING = f"text that a message can begin with, without white space in front, of at most {_MAX_CHARACTERS}"


def _begins_a_message(value: object) -> bool:
    return (
        isinstance(value, str)
        and fields.is_text(value)
        and not value[0].isspace()
        and len(value) <= _MAX_CHARACTERS
    )


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        raise bad_value(value, 'a list of texts, such as ["#", "**"]')
    problems = [
        Problem(at=(str(index),), value=text, must=f"must be {_BEGINNING} characters")
        for index, text in enumerate(value)
        if not _begins_a_message(text)
    ]
    if problems:
        raise BadValueError(*problems)
    return sorted(set(value))


def _penalties(value: object) -> dict[str, float]:
    if not isinstance(value, dict):
        raise bad_value(value, "a mapping of texts to numbers, such as {Sure: 2.0}")
    penalties, problems = dict[str, float](), list[Problem]()
    for text, penalty in value.items():
        number = fields.as_number(penalty)
        if not _begins_a_message(text):
            problems.append(Problem(at=(show(text),), value=text, must=f"must be {_BEGINNING} characters"))
        elif number is None or not -_MAX_PENALTY <= number <= _MAX_PENALTY:
            must = f"must be a number from {-_MAX_PENALTY:g} to {_MAX_PENALTY:g}"
            problems.append(Problem(at=(text,), value=penalty, must=must))
        else:
            penalties[text] = number
    if problems:
        raise BadValueError(*problems)
    return dict(sorted(penalties.items()))


Texts: TypeAlias = Annotated[list[str], PlainValidator(_texts)]
Penalties: TypeAlias = Annotated[dict[str, float], PlainValidator(_penalties)]


class FirstTokens(Section):
    """What messages never begin with, what they begin with less often, and how varied they begin."""

    ban: Texts = Field(default=[])
    penalties: Penalties = Field(default={})
    temperature: fields.OptionalPositive = None
    count: fields.Count = 3

    @property
    def is_active(self) -> bool:
        """Whether they change how any message begins."""
        return bool(self.ban or self.penalties) or self.temperature is not None


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
    first_tokens: FirstTokens = FirstTokens()


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
        return any(settings.first_tokens.is_active for role in ROLES for settings, _ in self.mix(role))

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
                flat |= _by_dotted_key(f"sampling.{role}", choices[0][0])
            else:
                flat[f"sampling.{role}"] = [settings | {"weight": weight} for settings, weight in choices]
        return flat


def sampling_choices(identity: Mapping[str, object]) -> list[tuple[str, float]]:
    """What each sampling_key of a build stands for, by what sets it apart, and its weight; these sum to one.

    `identity`: the build's; one choice, with nothing to tell, where all rows are made with the same settings.
    """
    mixes = [_choices(role, identity.get(f"sampling.{role}")) for role in ROLES]
    return [
        (", ".join(text for text, _ in pair if text), math.prod(weight for _, weight in pair))
        for pair in product(*mixes)
    ]


def _choices(role: Role, mix: object) -> list[tuple[str, float]]:
    """The same for one role's messages. `mix`: a list where there are several settings."""
    if not isinstance(mix, list):
        return [("", 1.0)]
    told = [_by_dotted_key(role, {k: v for k, v in choice.items() if k != "weight"}) for choice in mix]
    names = [name for name in told[0] if any(settings[name] != told[0][name] for settings in told)]
    texts = [
        ", ".join(f"{name} {json.dumps(settings[name], ensure_ascii=False)}" for name in names)
        for settings in told
    ]
    return [(text, float(choice["weight"])) for text, choice in zip(texts, mix, strict=True)]


def _by_dotted_key(prefix: str, values: Mapping[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        flat |= _by_dotted_key(key, value) if isinstance(value, dict) else {key: value}
    return flat
