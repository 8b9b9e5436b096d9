"""How messages may begin: the keys under `sampling.ROLE.first_tokens`.

Owns: what a text is that a message can begin with. Messages are stripped of surrounding white space, so such
a text begins with something else.
"""

from typing import Annotated, TypeAlias

from pydantic import Field, PlainValidator

from magpie_ray import config_fields as fields
from magpie_ray.config_errors import BadValueError, Problem, bad_value, show
from magpie_ray.config_section import Section
from magpie_ray.types import FirstTokens

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


class FirstTokensConfig(Section):
    """What messages never begin with, what they begin with less often, and how varied they begin."""

    ban: Texts = Field(default=[])
    penalties: Penalties = Field(default={})
    temperature: fields.OptionalPositive = None
    count: fields.Count = 3

    def resolved(self) -> FirstTokens | None:
        """What the engine is asked for; None when that is nothing."""
        if not self.ban and not self.penalties and self.temperature is None:
            return None
        return FirstTokens(
            ban=tuple(self.ban),
            penalties=tuple(self.penalties.items()),
            temperature=self.temperature,
            count=self.count,
        )
