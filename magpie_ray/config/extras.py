"""The two free-form mappings of a config: `engine.extra` and `output.storage_options`.

Owns: that they hold plain values only, that `engine.extra` takes no name which another key owns, and which of
its names can change what a model writes.
"""

import math
from typing import Annotated, TypeAlias

from pydantic import PlainValidator

from magpie_ray.config.fields import as_number, is_text
from magpie_ray.config.problems import BadValueError, Problem, bad_value, show
from magpie_ray.utils.redaction import is_secret_name, redact_secrets

_MAX_DEPTH = 20
_MAX_VALUES = 10_000

# Arguments of vLLM's engine that have a key of their own here.
_OWNERS = {
    "model": "model.name",
    "model_id": "model.name",
    "tokenizer": "model.name",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "code_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "seed": "seed",
    "device": "engine.device",
    "dtype": "engine.dtype",
    "quantization": "engine.quantization",
    "max_model_len": "engine.max_model_len",
    "max_num_seqs": "engine.max_num_seqs",
    "gpu_memory_utilization": "engine.gpu_memory_utilization",
    "tensor_parallel_size": "engine.tensor_parallel_size",
    "pipeline_parallel_size": "engine.pipeline_parallel_size",
    "data_parallel_size": "cluster.num_actors",
    "temperature": "sampling.user.temperature",
    "top_p": "sampling.user.top_p",
    "max_tokens": "sampling.user.max_tokens",
}

# Arguments that only decide speed, memory and logging. Whatever is not in this list counts as part of the
# build: to refuse a resume by mistake is better than to mix two models in one dataset.
_TUNING = frozenset(
    {
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_log_requests",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "load_format",
        "long_prefill_token_threshold",
        "max_long_partial_prefills",
        "max_num_batched_tokens",
        "max_num_partial_prefills",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "scheduling_policy",
        "swap_space",
        "worker_cls",
    }
)


# Arguments under which vLLM holds no first tokens: it refuses custom logits processors then, or takes a model
# runner that has others.
_WITHOUT_FIRST_TOKENS = {
    **dict.fromkeys(
        ("speculative_config", "spec_method", "spec_model", "spec_tokens"), "under speculative decoding"
    ),
    **dict.fromkeys(
        ("watermark_config", "diffusion_config", "return_sampling_mask", "enable_trace_replay"),
        "in its model runner V2, which this needs",
    ),
}


def first_tokens_refused_by(extra: dict[str, object]) -> tuple[str, str] | None:
    """The first name in `engine.extra` under which vLLM holds no sampling.*.first_tokens, and why."""
    return next(((name, why) for name, why in _WITHOUT_FIRST_TOKENS.items() if extra.get(name)), None)


def shapes_text(name: str) -> bool:
    """Whether this argument of the engine counts as part of the build: two values of it must not mix."""
    return name not in _TUNING and not is_secret_name(name)


def identity_of(extra: dict[str, object]) -> dict[str, object]:
    """The part of `engine.extra` that the fingerprint covers, without what looks like a secret."""
    return {name: redact_secrets(value, name) for name, value in extra.items() if shapes_text(name)}


def _options(value: object) -> dict[str, object]:
    options, problems = plain_mapping(value)
    if problems:
        raise BadValueError(*problems)
    return options


def _engine_extra(value: object) -> dict[str, object]:
    extra, problems = plain_mapping(value, has_numbers=True)
    for name in extra:
        argument = name.replace("-", "_")
        if owner := _OWNERS.get(argument):
            problems.append(Problem(at=(name,), value=extra[name], must=f"must be set with {owner}"))
        elif argument != name:
            problems.append(Problem(at=(name,), value=extra[name], must=f"must be written as {argument}"))
    if problems:
        raise BadValueError(*problems)
    return extra


def plain_mapping(value: object, *, has_numbers: bool = False) -> tuple[dict[str, object], list[Problem]]:
    """A copy of a mapping that JSON can hold, too, and what in it can't be. BadValueError when it is none."""
    if value is None:  # `storage_options:` with every line below it commented out
        return {}, []
    if not isinstance(value, dict):
        raise bad_value(value, "a mapping of names to values")
    copier = _Copier(has_numbers)
    return copier.mapping(value, ()), copier.problems


class _Copier:
    """Copies values that JSON can hold, too, and collects what can't be held.

    A few lines of YAML with aliases can mean a cycle or a billion values, so depth and number are bounded.
    """

    def __init__(self, has_numbers: bool) -> None:
        self._has_numbers = has_numbers
        self.problems: list[Problem] = []
        self._values = 0

    def mapping(self, value: dict[object, object], at: tuple[str, ...]) -> dict[str, object]:
        copied: dict[str, object] = {}
        for name, item in value.items():
            if isinstance(name, str) and is_text(name):
                copied[name] = self.value(item, (*at, name))
            else:
                must = "must be under a name that is text; put the name in quotes"
                self.problems.append(Problem(at=(*at, show(name)), value=item, must=must))
        return copied

    def value(self, value: object, at: tuple[str, ...]) -> object:
        self._values += 1
        if len(at) > _MAX_DEPTH or self._values > _MAX_VALUES:
            must = f"must be at most {_MAX_DEPTH} levels deep, with at most {_MAX_VALUES} values"
            raise BadValueError(Problem(at=at[:1], value=value, must=must))
        if isinstance(value, dict):
            return self.mapping(value, at)
        if isinstance(value, list):
            return [self.value(item, (*at, str(index))) for index, item in enumerate(value)]
        if not _is_plain(value):
            must = "must be text, a number, true, false, null, a list or a mapping"
            self.problems.append(Problem(at=at, value=value, must=must))
        elif self._has_numbers and isinstance(value, str) and as_number(value) is not None:
            # No field type says that a number is meant here, and the engine would get text.
            must = "must be written with a dot and a sign, as 1.0e+6 is: YAML reads 1e6 as text"
            self.problems.append(Problem(at=at, value=value, must=must))
        return value


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip() or is_text(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    return value is None or (isinstance(value, float) and math.isfinite(value))


EngineExtra: TypeAlias = Annotated[dict[str, object], PlainValidator(_engine_extra)]
StorageOptions: TypeAlias = Annotated[dict[str, object], PlainValidator(_options)]
