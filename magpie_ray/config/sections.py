"""The sections of the config: model, engine, rounds, acceptance, cluster, output. Sampling has a module."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from magpie_ray.config import fields
from magpie_ray.config.acceptance import CustomRules, RulesConfig, custom_rules
from magpie_ray.config.extras import EngineExtra, StorageOptions
from magpie_ray.config.fields import Section
from magpie_ray.config.output_path import has_placeholders
from magpie_ray.config.problems import bad_value


class ModelConfig(Section):
    """Which model, and how its chat format is found."""

    name: fields.ModelName = "builtin:tiny-chat"
    revision: fields.OptionalText = None
    pre_query_template: fields.OptionalText = None
    chat_format: fields.OptionalImportPath = None
    thinking: fields.Flag = False
    trust_remote_code: fields.Flag = False

    @field_validator("chat_format")
    @classmethod
    def _is_the_only_format(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("pre_query_template") is not None:
            raise bad_value(value, "null where model.pre_query_template is given: a format has its own")
        return value


class EngineConfig(Section):
    """One engine: the device and memory of one actor."""

    device: fields.Device = "auto"
    tensor_parallel_size: fields.Count = 1
    pipeline_parallel_size: fields.Count = 1
    max_model_len: fields.OptionalCount = None
    max_num_seqs: fields.OptionalCount = None
    gpu_memory_utilization: fields.Share = 0.92
    dtype: fields.Dtype = "auto"
    quantization: fields.OptionalText = None
    vllm_metrics: fields.Flag = False
    # Not in repr, which ends up in logs: it may hold a token.
    extra: EngineExtra = Field(default={}, repr=False)


class RoundsConfig(Section):
    """How many conversations advance together, and how many such cohorts share an engine."""

    cohort_size: fields.AutoCount = "auto"
    cohorts_in_flight: fields.AutoCount = "auto"


class AcceptanceConfig(Section):
    """What becomes of messages that are not what was asked for."""

    max_attempts: fields.Count = 8
    truncated_response: fields.OnTruncated = "keep"
    context_full: fields.OnContextFull = "reject"
    retry_from: fields.RetryFrom = "start"
    min_accept_rate: fields.Rate = 0.1
    rejects_per_reason: fields.Whole = 3
    rules: RulesConfig = RulesConfig()
    custom: CustomRules = Field(default=[])

    @property
    def custom_rules(self) -> list[tuple[str, dict[str, Any]]]:
        """Import path and thresholds of the user's own rules, in the order in which they are tried."""
        return custom_rules(self.custom)


class ClusterConfig(Section):
    """How many actors, and when to give up."""

    num_actors: fields.AutoCount = "auto"
    max_failures_per_partition: fields.Count = 3
    address: fields.OptionalText = None
    stall_timeout_seconds: fields.Positive = 600.0
    start_timeout_seconds: fields.Positive = 1800.0


class OutputConfig(Section):
    """Where the rows go."""

    path: fields.OutputPath = "./out/demo"
    build_id: fields.BuildId = None
    rows_per_partition: fields.AutoRows = "auto"
    compression: fields.Compression = "zstd"
    storage_options: StorageOptions = Field(default={}, repr=False)
    single_writer: fields.Flag = False

    @field_validator("build_id")
    @classmethod
    def _names_a_build_of_several(cls, value: str | None, info: ValidationInfo) -> str | None:
        path = info.data.get("path")
        if value is not None and path is not None and not has_placeholders(path):
            raise bad_value(value, "null where output.path has no placeholder: such a path is a single build")
        return value
