"""Configs for tests, and the message with which one is refused."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from magpie_ray.config.loading import load_config, parse_config
from magpie_ray.config.schema import Config
from magpie_ray.errors import ConfigError


def config(**data: Any) -> Config:
    """A config of ten rows with these keys."""
    return parse_config({"num_rows": 10, **data})


def message_of(data: Any) -> str:
    """The message with which the config is refused."""
    with pytest.raises(ConfigError) as caught:
        parse_config(data)
    return str(caught.value)


def overridden(*overrides: str) -> Config:
    """A config of ten rows with these overrides."""
    return load_config(None, ["num_rows=10", *overrides])


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a value may be, alone or among others."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict):
        return None
    return next((section for part in get_args(annotation) if (section := section_in(part))), None)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys that take a value."""
    for field_name, field in model.model_fields.items():
        name = field.alias or field_name
        if section := section_in(field.annotation):
            yield from keys_of(section, f"{prefix}{name}.")
        else:
            yield prefix + name
