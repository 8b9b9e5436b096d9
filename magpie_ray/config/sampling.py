"""The section `sampling`: for each role one setting, or several with weights that rows choose from.

Owns: the keys under `sampling` and their part of a build's identity.
"""

import json
import math
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag

from magpie_ray.config import fields
from magpie_ray.config.fields import Section, is_text, must_be, must_be_a, must_be_number
from magpie_ray.config.identity import NEUTRAL
from magpie_ray.config.problems import NO_KEY, bad_value
from magpie_ray.types import ROLES, Role

# The share of max_tokens that messages use on average: a row of the paper has 426 of 512 + 1024 tokens.
EXPECTED_FILL = 0.28

_MAX_CHARACTERS = 100
_GREEDY = 1e-5  # a lower temperature is greedy in vLLM


def _as_beginning(value: object) -> str | None:
    if not isinstance(value, str) or not is_text(value) or value[0].isspace() or len(value) > _MAX_CHARACTERS:
        return None
    return value


Beginning = Annotated[
    str,
    must_be(
        "text that a message can begin with, without white space in front, "
        f"of at most {_MAX_CHARACTERS} characters",
        _as_beginning,
    ),
]
# Sorted, so that another order is the same build.
Beginnings = Annotated[
    list[Beginning],
    must_be_a(list, 'a list of texts, such as ["#", "**"]'),
    AfterValidator(lambda texts: sorted(set(texts))),
]
_FirstPenalty = Annotated[float, must_be_number("a number from -100 to 100", lambda x: -100 <= x <= 100)]
Penalties = Annotated[
    dict[Beginning, _FirstPenalty],
    must_be_a(dict, "a mapping of texts to numbers, such as {Sure: 2.0}"),
    AfterValidator(lambda penalties: dict(sorted(penalties.items()))),
]


class FirstTokens(Section):
    """Beginnings of messages: banned texts, penalised texts, and how varied the first tokens are.

    penalties: taken from the logits of tokens that begin the message with the text or a part of it.
    temperature: of the first `count` tokens; None: as of the others. Above MAX_TEMPERATURE, which some builds
    of earlier versions have, it is MAX_TEMPERATURE. White space before a message is ignored.
    """

    ban: Beginnings = Field(default=[])
    penalties: Penalties = Field(default={})
    temperature: fields.OptionalPositive = None
    count: fields.Count = 3

    @property
    def is_active(self) -> bool:
        """Whether they change how any message begins."""
        return bool(self.ban or self.penalties) or self.temperature is not None


class SamplingSettings(Section):
    """How messages of a role are sampled, in vLLM's names. The defaults from top_k on change nothing.

    max_tokens: of one message.
    """

    temperature: fields.Temperature = 1.0
    top_p: fields.Share = 1.0
    max_tokens: fields.Count = 512
    top_k: fields.TopK = 0
    min_p: fields.Rate = 0.0
    repetition_penalty: fields.Positive = 1.0
    presence_penalty: fields.Penalty = 0.0
    frequency_penalty: fields.Penalty = 0.0
    first_tokens: FirstTokens = FirstTokens()

    @property
    def is_greedy(self) -> bool:
        """Whether a message that is drawn again is the same."""
        return self.top_k == 1 or max(self.first_tokens.temperature or 0.0, self.temperature) < _GREEDY

    @property
    def needs_logit_biases(self) -> bool:
        """Whether drawing a banned first token again, in place of a bias, would draw the same one."""
        rules = self.first_tokens
        is_greedy = self.top_k == 1 or (rules.temperature or self.temperature) < _GREEDY
        return bool(rules.penalties) or (bool(rules.ban) and is_greedy)


class UserSettings(SamplingSettings):
    """The user's messages, unlike answers, can be cut at their first line break."""

    first_line_only: bool = False


class AssistantSettings(SamplingSettings):
    """The paper's answers are greedy, and longer than its questions."""

    temperature: fields.Temperature = 0.0
    max_tokens: fields.Count = 1024


class WeightedUserSettings(UserSettings):
    """One of several settings that rows choose from."""

    weight: fields.Weight | None = None


class WeightedAssistantSettings(AssistantSettings):
    """One of several settings that rows choose from."""

    weight: fields.Weight | None = None


def _check_mix(mix: list[Any]) -> list[Any]:
    if not mix:
        raise bad_value(mix, "a mapping, or a list of at least one")
    unweighted = [index for index, choice in enumerate(mix) if choice.weight is None]
    if 0 < len(unweighted) < len(mix):
        # A silent weight of 1 among shares that sum to one would drown them.
        raise bad_value(None, "given, as others have", at=(str(unweighted[0]), "weight"))
    return mix


_One = TypeVar("_One", bound=SamplingSettings)
_Weighted = TypeVar("_Weighted", bound=SamplingSettings)
# Settings, or a list of them with weights, which are given to all of them or to none.
OneOrMix = Annotated[
    Annotated[_One, Tag(f"{NO_KEY}one")]
    | Annotated[list[_Weighted], AfterValidator(_check_mix), Tag(f"{NO_KEY}mix")],
    Discriminator(lambda value: f"{NO_KEY}mix" if isinstance(value, list) else f"{NO_KEY}one"),
]


class SamplingConfig(Section):
    """User and assistant messages are sampled apart: varied questions, careful answers.

    Each is one setting, or a list of settings with weights that rows choose from.
    """

    user: OneOrMix[UserSettings, WeightedUserSettings] = UserSettings()
    assistant: OneOrMix[AssistantSettings, WeightedAssistantSettings] = AssistantSettings()
    reproducible: bool = False

    def mix(self, role: Role) -> tuple[tuple[SamplingSettings, float], ...]:
        """The settings that rows choose from for the role, with weights that sum to one."""
        settings = self.user if role == "user" else self.assistant
        if not isinstance(settings, list):
            return ((settings, 1.0),)
        total = math.fsum(choice.weight or 1.0 for choice in settings)
        return tuple((choice, (choice.weight or 1.0) / total) for choice in settings)

    def max_tokens(self, role: Role) -> int:
        """The largest number of tokens that a message of the role may have."""
        return max(settings.max_tokens for settings, _ in self.mix(role))

    @property
    def uses_first_tokens(self) -> bool:
        """Whether any message's beginning is banned, penalised, or has a temperature of its own."""
        return any(settings.first_tokens.is_active for role in ROLES for settings, _ in self.mix(role))

    @property
    def is_mixed(self) -> bool:
        """Whether rows have the column `sampling_key`, which names the settings they were made with."""
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


def sampling_choices(
    identity: Mapping[str, object], *, neutral: Mapping[str, object] = NEUTRAL
) -> list[tuple[str, float]]:
    """For each sampling_key of a build: the settings that set it apart, as text, and its weight.

    `identity` is the build's; neutral: values of keys that it lacks. The weights sum to one. Where all rows
    share their settings, the one text is empty.
    """
    mixes = [_choices(role, identity.get(f"sampling.{role}"), neutral) for role in ROLES]
    return [
        (", ".join(text for text, _ in pair if text), math.prod(weight for _, weight in pair))
        for pair in product(*mixes)
    ]


def _choices(role: Role, mix: object, neutral: Mapping[str, object]) -> list[tuple[str, float]]:
    """The same for one role. `mix` is a list where there are several settings."""
    if not isinstance(mix, list):
        return [("", 1.0)]
    choices = [_by_dotted_key(role, choice) for choice in mix]
    weights = [float(choice.pop(f"{role}.weight")) for choice in choices]

    def value(choice: Mapping[str, Any], key: str) -> Any:
        return choice.get(key, neutral.get(f"sampling.{key}"))

    keys = dict.fromkeys(key for choice in choices for key in choice)
    differing = [key for key in keys if any(value(one, key) != value(choices[0], key) for one in choices)]
    return [
        (
            ", ".join(f"{key} {json.dumps(value(choice, key), ensure_ascii=False)}" for key in differing),
            weight,
        )
        for choice, weight in zip(choices, weights, strict=True)
    ]


def _by_dotted_key(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}.{name}"
        flat |= _by_dotted_key(key, value) if isinstance(value, dict) else {key: value}
    return flat
