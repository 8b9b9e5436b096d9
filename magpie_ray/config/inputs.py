"""The sections `inputs` and `source`: tables of the user's that rows take something from."""

import glob
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, field_validator

from magpie_ray.config import fields
from magpie_ray.config.extras import plain_mapping
from magpie_ray.config.fields import Section, is_text, must_be_text
from magpie_ray.config.output_path import URL_PASSWORD
from magpie_ray.config.problems import bad_value

# Also of a link in a chain such as zip://a.csv::https://host/a.zip?sig=...
_QUERY = re.compile(r"(?:^|::)https?://[^?]*\?", re.IGNORECASE)


def beside_config(data: Mapping[Any, object], folder: Path) -> dict[Any, object]:
    """What a config file holds, with a relative inputs.path as one in the file's folder, if that is there.

    So has a relative source.path. Otherwise the path stays relative to the folder that the command runs in.
    """
    name = "source" if "source" in data else "inputs"
    section = data.get(name)
    if not isinstance(section, dict) or not isinstance(path := section.get("path"), str):
        return dict(data)
    if path.startswith("~") or "::" in path or "://" in path or "\0" in path:
        return dict(data)
    beside = os.path.join(folder, path)
    if os.path.isabs(path) or folder == Path():
        return dict(data)
    if not os.path.exists(beside) and not any(glob.iglob(beside, recursive=True)):
        return dict(data)
    return {**data, name: {**section, "path": beside}}


def can_be_read(section: str) -> Callable[[str | None], str | None]:
    """The check of a path that rows are read from: BadValueError where it is none, or holds a credential."""

    def check(path: str | None) -> str | None:
        if path is None:
            return None
        if any(URL_PASSWORD.match(link) for link in path.split("::")):
            # The value is not shown, as it holds the password.
            raise bad_value(
                "a URL with a password in it", f"without; credentials go to {section}.storage_options"
            )
        if _QUERY.search(path):
            shown = path.partition("?")[0] + "?..."
            phrase = f"without a query, which may hold a credential; options go to {section}.storage_options"
            raise bad_value(shown, phrase)
        scheme, separator, rest = path.partition("://")
        if separator and (not scheme or not rest.strip("/")):
            raise bad_value(path, "a URL with a scheme and a place, such as s3://bucket/prompts.parquet")
        return path

    return check


def column_names(value: object) -> list[str]:
    """Names of columns, each once. BadValueError for anything else."""
    if not isinstance(value, list):
        raise bad_value(value, "a list of names of columns, such as [topic]")
    for index, name in enumerate(value):
        if not is_text(name):
            phrase = "the name of a column, in quotes where YAML reads it as something else"
            raise bad_value(name, phrase, at=(str(index),))
        if name in value[:index]:
            raise bad_value(name, "there once", at=(str(index),))
    return list(value)


class InputsConfig(Section):
    """Where rows take their system prompts and further columns from. Without a path there are no inputs."""

    path: Annotated[
        str | None,
        must_be_text("a local path, a glob or a URL such as s3://bucket/prompts.parquet", null=True),
        AfterValidator(can_be_read("inputs")),
    ] = None
    system_prompt: Annotated[str, must_be_text("the name of a column")] = "system_prompt"
    keep: Annotated[list[str], PlainValidator(column_names)] = Field(default=[])
    pick: Literal["in_order", "at_random"] = "in_order"
    weight: fields.OptionalText = None
    storage_options: dict[str, Any] = Field(default={}, repr=False)

    _are_plain = field_validator("storage_options", mode="plain")(plain_mapping)

    @field_validator("system_prompt", "keep", "pick", "weight", "storage_options")
    @classmethod
    def _needs_a_path(cls, value: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[str(info.field_name)].default
        if value != default and "path" in info.data and info.data["path"] is None:
            raise bad_value(value, "left out unless inputs.path names the inputs")
        return value

    @field_validator("weight")
    @classmethod
    def _weighs_a_draw(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("pick") == "in_order":
            raise bad_value(
                value, "null unless inputs.pick is at_random: in order, all inputs are taken alike"
            )
        return value


class SourceConfig(Section):
    """The data set that a pass goes over. keep: columns that the rows of the pass have, too."""

    path: Annotated[
        str,
        must_be_text("the output of another job, a local path, a glob or a URL such as s3://bucket/raw"),
        AfterValidator(can_be_read("source")),
    ]
    keep: Annotated[list[str], PlainValidator(column_names)] = Field(default=[])
    storage_options: dict[str, Any] = Field(default={}, repr=False)

    _are_plain = field_validator("storage_options", mode="plain")(plain_mapping)
