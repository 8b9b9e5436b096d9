"""The mapping `engine.extra`: arguments of vLLM's engine that have no key of their own.

Owns: which names it does not take, because another key sets them or this project depends on them, and which
of its names can't change the text a model writes.
"""

from collections.abc import Collection

from magpie_ray.config.extras import plain_mapping
from magpie_ray.config.problems import Problem
from magpie_ray.utils.redaction import is_secret_name, redact_secrets

# Names that another key sets.
_OWNERS = {
    **dict.fromkeys(("model", "model_id", "model_weights", "tokenizer"), "model.name"),
    **dict.fromkeys(("revision", "tokenizer_revision", "code_revision"), "model.revision"),
    "trust_remote_code": "model.trust_remote_code",
    "seed": "seed",
    "data_parallel_size": "cluster.num_actors",
    "max_num_active_seqs": "engine.max_num_seqs",
    "temperature": "sampling.user.temperature",
    "top_p": "sampling.user.top_p",
    "max_tokens": "sampling.user.max_tokens",
}

_PLACED = (
    "engine.tensor_parallel_size and engine.pipeline_parallel_size say how many GPUs an engine has, and Ray "
    "places it"
)
_ONE_ENGINE = "each actor runs one engine, and cluster.num_actors says how many actors there are"
_ADMITTED = "engine.max_num_seqs and the section rounds say how many requests an engine has"
_GENERATES = "the engine of a build continues token ids, and needs its tokenizer for stop strings"

# Names that no key sets, because this project decides them. The reason completes "must be left out: ".
_DECIDED_HERE = {
    "distributed_executor_backend": _PLACED,
    "prefill_context_parallel_size": _PLACED,
    "device_ids": _PLACED,
    "nnodes": _PLACED,
    "node_rank": _PLACED,
    "master_addr": _PLACED,
    "master_port": _PLACED,
    "worker_cls": "engine.device chooses it",
    "data_parallel_rank": _ONE_ENGINE,
    "data_parallel_start_rank": _ONE_ENGINE,
    "data_parallel_size_local": _ONE_ENGINE,
    "data_parallel_address": _ONE_ENGINE,
    "data_parallel_rpc_port": _ONE_ENGINE,
    "data_parallel_backend": _ONE_ENGINE,
    "data_parallel_hybrid_lb": _ONE_ENGINE,
    "data_parallel_external_lb": _ONE_ENGINE,
    "data_parallel_multi_port_external_lb": _ONE_ENGINE,
    "enable_elastic_ep": _ONE_ENGINE,
    "elastic_ep_max_dp_size": _ONE_ENGINE,
    "api_server_count": _ONE_ENGINE,
    "headless": _ONE_ENGINE,
    "_api_process_count": _ONE_ENGINE,
    "_api_process_rank": _ONE_ENGINE,
    "scheduler_cls": _ADMITTED,
    "max_num_queued_reqs": _ADMITTED,
    "max_num_queued_tokens": _ADMITTED,
    "runner": _GENERATES,
    "convert": _GENERATES,
    "task": _GENERATES,
    "skip_tokenizer_init": _GENERATES,
    "tokens_only": _GENERATES,
    "disable_log_stats": "an engine without statistics can't be told from one that hangs",
}

# Arguments that only decide speed, memory and logging. All others count as part of the build: refusing a
# resume by mistake is better than mixing two models in one dataset.
_TUNING = frozenset(
    {
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
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
    }
)

_SPECULATION = ("speculative_config", "spec_method", "spec_model", "spec_tokens")


def speculation_of(extra: dict[str, object]) -> str | None:
    """The name in `engine.extra` that asks for speculative decoding: vLLM takes no logit biases then."""
    return next((name for name in _SPECULATION if extra.get(name)), None)


def identity_of(extra: dict[str, object]) -> dict[str, object]:
    """The part of `engine.extra` that the fingerprint covers, without values that look like secrets."""
    return {
        name: redact_secrets(value, name)
        for name, value in extra.items()
        if name not in _TUNING and not is_secret_name(name)
    }


def engine_extra(value: object, *, section: Collection[str]) -> dict[str, object]:
    """A copy of the mapping `engine.extra`. It can't repeat `section`, the keys of the section `engine`.

    Raises:
        BadValueError: with every problem found in it.
    """
    problems = []
    for name, item in value.items() if isinstance(value, dict) else ():
        argument = str(name).replace("-", "_")
        if must := _wrong_with(argument, section):
            problems.append(Problem(at=(name,), value=item, must=must))
        elif isinstance(name, str) and argument != name:
            problems.append(Problem(at=(name,), value=item, must=f"must be written as {argument}"))
    return plain_mapping(value, has_numbers=True, names=problems)


def _wrong_with(argument: str, section: Collection[str]) -> str:
    """What has to be done about an argument that `engine.extra` does not take; "" for one that it takes."""
    if owner := f"engine.{argument}" if argument in section else _OWNERS.get(argument):
        return f"must be set with {owner}"
    return f"must be left out: {_DECIDED_HERE[argument]}" if argument in _DECIDED_HERE else ""
