"""vLLM's environment variables and the arguments of its engine. Imports no vLLM.

Invariant: a value that the user set, in the environment or in engine.extra, stays.
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from magpie_ray.config.sections import EngineConfig
from magpie_ray.errors import ConfigError
from magpie_ray.utils.logs import LogStyle

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
}
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's default takes half the machine, once per actor
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its default binds two engines of a machine to the same core
}
# Small models on a few cores gain nothing from larger batches. On GPUs vLLM's own default for offline use
# stays.
_CPU_MAX_NUM_SEQS = 128
# Prefixes are cached in whole blocks. vLLM's default on a CPU, 128 tokens, is longer than many conversations:
# with 32, the minimum, the bundled model makes 56 rows/s of three turns instead of 26.
_CPU_BLOCK_SIZE = 32

# What vLLM makes of a model: one that writes, or one that gives a vector for a whole prompt.
Runner = Literal["generate", "pooling"]

# Keys of the section `engine` that vLLM's EngineArgs do not have. The others have vLLM's names.
_OUR_ENGINE_KEYS = {"device", "vllm_metrics", "extra"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VllmSettings:
    """The config's section `engine`, and the settings that other sections or the worker decide.

    device: cuda or cpu. ray_metrics: whether vLLM's own metrics go to Ray's, in a process that has joined a
    Ray cluster. seeded: whether requests have seeds of their own.
    """

    engine: EngineConfig
    model: str
    revision: str | None
    device: str
    seed: int
    trust_remote_code: bool = False
    distributed_executor_backend: str | None = None
    ray_metrics: bool = False
    seeded: bool = False


def set_environment(device: str) -> None:
    """Set the variables that vLLM reads when it is imported."""
    variables = _ENVIRONMENT | (_CPU_ENVIRONMENT if device == "cpu" else {})
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def set_log_environment(style: LogStyle) -> None:
    """Set how much vLLM logs; a JSON log is set up elsewhere. Call this before vLLM is imported."""
    if style.verbose:
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "INFO")
    else:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if style.json:
        os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")


def check_extra(extra: Mapping[str, object], args_type: type) -> None:
    """ConfigError for names in `extra` that vLLM's EngineArgs, a dataclass, lack."""
    names = {field.name for field in dataclasses.fields(args_type)}
    if unknown := sorted(set(extra) - names):
        raise ConfigError(
            f"engine.extra has {', '.join(unknown)}, which this vLLM's EngineArgs do not know: "
            "see `vllm serve --help` for the names (with underscores here)"
        )


def refusal(exc: ValidationError) -> str:
    """The problems that vLLM found in its arguments, without their values."""
    problems = [
        f"{error['loc'][0]}: {error['msg']}" if error["loc"] else error["msg"]
        for error in exc.errors(include_url=False, include_input=False)
    ]
    return "vLLM refuses a value of engine or engine.extra: " + "; ".join(dict.fromkeys(problems))


def engine_args(settings: VllmSettings, *, runner: Runner = "generate") -> dict[str, object]:
    """Keyword arguments of vLLM's EngineArgs."""
    engine = settings.engine
    args: dict[str, object] = {
        **engine.model_dump(exclude=_OUR_ENGINE_KEYS),
        "model": settings.model,
        "revision": settings.revision,
        "tokenizer_revision": settings.revision,
        "trust_remote_code": settings.trust_remote_code,
        "runner": runner,
        "seed": settings.seed,
        "distributed_executor_backend": settings.distributed_executor_backend,
        # Of pooling models only some can take prefixes from the cache, which vLLM knows.
        "enable_prefix_caching": True if runner == "generate" else None,
        # Only the build's sampling settings count, none from the model's generation_config.json.
        "generation_config": "vllm",
        "disable_log_stats": False,
        "use_tqdm_on_load": False,  # bars are noise in an actor's log
    }
    if settings.device == "cpu":
        del args["gpu_memory_utilization"]
        args["enforce_eager"] = True  # compiling takes a minute and gains nothing on small CPU models
        args["max_num_seqs"] = engine.max_num_seqs or _CPU_MAX_NUM_SEQS
        args["block_size"] = _CPU_BLOCK_SIZE
        if engine.dtype == "auto":
            args["dtype"] = "float32"  # bfloat16 is three times slower on CPUs without AVX-512
        if settings.seeded:
            # After each part of a prompt but the last vLLM turns the request's generator back, which torch's
            # generators on a CPU can't do: the engine would die.
            args["enable_chunked_prefill"] = False
    return args | engine.extra
