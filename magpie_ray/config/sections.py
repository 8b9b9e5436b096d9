"""The sections `model`, `engine`, `rounds`, `cluster` and `output` of the config."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from magpie_ray.config import fields
from magpie_ray.config.engine_extra import engine_extra
from magpie_ray.config.extras import plain_mapping
from magpie_ray.config.fields import Section
from magpie_ray.config.output_path import BuildId, OutputPath, has_placeholders
from magpie_ray.config.problems import bad_value


class ModelConfig(Section):
    """Which model, and how its chat format is found."""

    name: fields.ModelName = "builtin:tiny-chat"
    revision: fields.OptionalText = None
    pre_query_template: fields.OptionalText = None
    chat_format: fields.OptionalImportPath = None
    chat_template_name: fields.OptionalText = None
    thinking: bool = False
    trust_remote_code: bool = False

    @field_validator("chat_format", mode="before")
    @classmethod
    def _of_function(cls, value: object) -> object:
        return fields.path_of_function(value) if callable(value) else value

    @field_validator("chat_format")
    @classmethod
    def _is_the_only_format(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("pre_query_template") is not None:
            raise bad_value(value, "null where model.pre_query_template is given: a format has its own")
        return value


class EngineConfig(Section):
    """One engine: the device and memory of one actor. Keys that vLLM has, too, have vLLM's names."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    tensor_parallel_size: fields.Count = 1
    pipeline_parallel_size: fields.Count = 1
    max_model_len: fields.OptionalCount = None
    max_num_seqs: fields.OptionalCount = None
    gpu_memory_utilization: fields.Share = 0.92
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: fields.OptionalText = None
    vllm_metrics: bool = False
    # Not in repr, which ends up in logs: it may hold a token.
    extra: dict[str, Any] = Field(default={}, repr=False)

    @field_validator("extra", mode="plain")
    @classmethod
    def _has_only_names_of_its_own(cls, value: object) -> dict[str, Any]:
        return engine_extra(value, section=cls.model_fields)


class RoundsConfig(Section):
    """How many conversations advance together, and how many such cohorts share an engine."""

    cohort_size: fields.AutoCount = "auto"
    cohorts_in_flight: fields.AutoCount = "auto"


class ClusterConfig(Section):
    """How many actors, and when to give up."""

    num_actors: fields.AutoActors = "auto"
    max_failures_per_partition: fields.Count = 3
    address: fields.OptionalText = None
    stall_timeout_seconds: fields.Positive = 600.0
    start_timeout_seconds: fields.Positive = 1800.0
    notice_seconds: fields.Positive = 25.0


class OutputConfig(Section):
    """Where the rows go."""

    path: OutputPath = "./out/demo"
    build_id: BuildId = None
    rows_per_partition: fields.AutoRows = "auto"
    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd"
    storage_options: dict[str, Any] = Field(default={}, repr=False)
    single_writer: bool = False

    _are_plain = field_validator("storage_options", mode="plain")(plain_mapping)

    @field_validator("build_id")
    @classmethod
    def _names_a_build_of_several(cls, value: str | None, info: ValidationInfo) -> str | None:
        path = info.data.get("path")
        if value is not None and path is not None and not has_placeholders(path):
            raise bad_value(value, "null where output.path has no placeholder: such a path is a single build")
        return value
