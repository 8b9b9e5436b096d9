"""The config of the pass `score`: which rows, which columns, and by which model."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from magpie_ray.config import fields
from magpie_ray.config.fields import Section
from magpie_ray.config.inputs import SourceConfig
from magpie_ray.config.job import engine_identity, model_identity, without_secrets
from magpie_ray.config.problems import bad_value
from magpie_ray.config.scoring import Columns, ScoreKind, kind_of_all, names_of
from magpie_ray.config.sections import ClusterConfig, EngineConfig, ModelConfig, OutputConfig
from magpie_ray.utils.redaction import secrets_of

# Keys of the model that say how it writes.
_OF_WRITERS = ("pre_query_template", "chat_format")


class ScoreConfig(Section):
    """A whole, consistent request for scores. Made by `config.loading`, which raises `ConfigError`.

    num_rows: of the source, from its first one on; 0 where it is left out: all of them.
    """

    source: SourceConfig
    num_rows: int = 0
    columns: Columns
    model: ModelConfig = ModelConfig()
    engine: EngineConfig = EngineConfig()
    cluster: ClusterConfig = ClusterConfig()
    output: OutputConfig = Field(default=OutputConfig(path="./out/scores"))

    _counts_rows = field_validator("num_rows", mode="plain")(fields.rows_or_all)

    @field_validator("model")
    @classmethod
    def _serves_the_columns(cls, model: ModelConfig, info: ValidationInfo) -> ModelConfig:
        if model.thinking:
            raise bad_value(True, "false in a score pass, where answers begin with a label", at=("thinking",))
        columns = info.data.get("columns")
        if columns and (kind := kind_of_all(columns)) != "choice":
            for name in _OF_WRITERS:
                if (value := getattr(model, name)) is not None:
                    phrase = f"null with columns of the kind {kind}, whose model writes nothing"
                    raise bad_value(value, phrase, at=(name,))
        return model

    @property
    def kind(self) -> ScoreKind:
        """The kind of all columns."""
        return kind_of_all(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the rows, behind row_id, that the columns of the config become."""
        return tuple(written for name in self.columns for written in names_of(name, self.kind))

    @property
    def seed_number(self) -> int:
        """Of the engines. A score draws nothing."""
        return 0

    @property
    def own_rules(self) -> list[str]:
        """No rule judges a score."""
        return []

    @property
    def messages_per_row(self) -> int:
        """A score writes none."""
        return 0

    @property
    def max_tokens_per_row(self) -> int:
        """Tokens that are generated for a row, about: one for each column."""
        return len(self.columns)

    @property
    def order(self) -> list[list[str]]:
        """Each column with its labels, in the order in which files and prompts have them."""
        return [[name, *getattr(column, "choice", ())] for name, column in self.columns.items()]

    def identity(self) -> dict[str, object]:
        """The config's part of the fingerprint, as Config.identity; the build spec adds source and order.

        A change of a label's description changes it, because it may change the label.
        """
        return {
            "job": "score",
            "source.keep": self.source.keep,
            "columns": {name: column.model_dump(mode="json") for name, column in self.columns.items()},
            **model_identity(self.model),
            **engine_identity(self.engine),
        }

    def secrets(self) -> frozenset[str]:
        """As Config.secrets."""
        return secrets_of(self.engine.extra, self.output.storage_options, self.source.storage_options)

    def recorded(self) -> dict[str, Any]:
        """The config for build.json, JSON-able, without num_rows and secrets."""
        return without_secrets(self.model_dump(exclude={"num_rows"}), self.engine.extra)
