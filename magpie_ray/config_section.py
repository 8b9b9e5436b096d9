"""What every section of the config is: frozen, strict, without keys that nobody knows."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, data: object) -> object:
        # `engine:` with every line below it commented out reads as null.
        return {} if data is None else data
