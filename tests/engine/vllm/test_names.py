"""The installed vLLM has every name that this project uses of it. Only its source is read."""

import ast
import importlib.metadata
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.config.sections import EngineConfig
from magpie_ray.engine.message_heads import MAX_BIASES
from magpie_ray.engine.vllm.args import VllmSettings, engine_args
from magpie_ray.preflight.engine_arguments import installed_vllm

OWN = Path("magpie_ray/engine/vllm")
VLLM = installed_vllm()
pytestmark = pytest.mark.skipif(VLLM is None, reason="vLLM is not installed")

# (module, class, names, what they are for). What `from vllm... import` takes is found in the source of this
# project; these are the names that it takes of objects. "" as a class: names of the module.
USED: tuple[tuple[str, str, str, str], ...] = (
    ("vllm.v1.engine.llm_engine", "LLMEngine", "from_engine_args", "starting an engine"),
    ("vllm.v1.engine.llm_engine", "LLMEngine", "add_request abort_request step", "driving an engine"),
    ("vllm.v1.engine.llm_engine", "LLMEngine", "vllm_config", "its figures: slots, KV cache, context"),
    ("vllm.v1.engine.llm_engine", "LLMEngine", "get_tokenizer", "cutting a message at a stop string"),
    ("vllm.v1.engine.llm_engine", "LLMEngine", "engine_core", "stopping an engine"),
    ("vllm.v1.engine.core_client", "EngineCoreClient", "shutdown", "stopping an engine"),
    ("vllm.v1.engine.core_client", "MPClient", "resources", "the end of an engine's process"),
    ("vllm.v1.engine.core_client", "BackgroundResources", "engine_manager", "the end of an engine's process"),
    ("vllm.v1.engine.core_client", "SyncMPClient", "outputs_queue", "the end of an engine's process"),
    ("vllm.v1.engine.utils", "CoreEngineProcManager", "processes", "the end of an engine's process"),
    ("vllm.v1.engine.core_client", "InprocClient", "engine_core", "the end of a worker"),
    ("vllm.v1.engine.core", "EngineCore", "model_executor", "the end of a worker"),
    ("vllm.v1.executor.multiproc_executor", "MultiprocExecutor", "workers", "the end of a worker"),
    ("vllm.v1.executor.multiproc_executor", "WorkerProcHandle", "proc", "the end of a worker"),
    ("vllm.usage.usage_lib", "UsageContext", "LLM_CLASS", "vLLM's defaults for offline use"),
    ("vllm.sampling_params", "RequestOutputKind", "FINAL_ONLY", "one output a request"),
    ("vllm.sampling_params", "SamplingParams", "clone seed", "a seed for each request"),
    ("vllm.sampling_params", "SamplingParams", "stop stop_token_ids detokenize", "ends of messages"),
    (
        "vllm.sampling_params",
        "SamplingParams",
        "skip_special_tokens output_kind skip_clone",
        "token ids alone",
    ),
    ("vllm.sampling_params", "SamplingParams", "logit_bias", "bans and penalties of first tokens"),
    ("vllm.outputs", "RequestOutput", "request_id finished outputs", "completions"),
    (
        "vllm.outputs",
        "RequestOutput",
        "prompt_token_ids num_cached_tokens",
        "leaving refreshes out of counts",
    ),
    ("vllm.sampling_params", "SamplingParams", "logprob_token_ids max_tokens temperature", "labels"),
    ("vllm.sampling_params", "", "MAX_LOGPROB_TOKEN_IDS", "the number of labels"),
    ("vllm.pooling_params", "PoolingParams", "task use_activation", "rewards and embeddings"),
    ("vllm.outputs", "CompletionOutput", "logprobs", "labels"),
    ("vllm.outputs", "PoolingRequestOutput", "request_id finished outputs", "rewards and embeddings"),
    ("vllm.outputs", "PoolingOutput", "data", "rewards and embeddings"),
    ("vllm.logprobs", "Logprob", "logprob", "labels"),
    ("vllm.v1.engine.llm_engine", "LLMEngine", "get_supported_tasks", "the kind of a model"),
    ("vllm.config.model", "ModelConfig", "embedding_size hf_config", "the size of vectors"),
    ("vllm.outputs", "CompletionOutput", "token_ids text finish_reason stop_reason", "the ids of a message"),
    ("vllm.config.cache", "CacheConfig", "block_size num_gpu_blocks enable_prefix_caching", "the KV cache"),
    ("vllm.config.scheduler", "SchedulerConfig", "max_num_seqs", "the slots of an engine"),
    ("vllm.config.model", "ModelConfig", "max_model_len", "the context of an engine"),
    ("vllm.config.model", "ModelConfig", "get_vocab_size", "first tokens"),
    ("vllm.v1.worker.gpu.sample.logit_bias", "", "MAX_NUM_LOGIT_BIAS_TOKENS", "bans of first tokens"),
    ("vllm.v1.metrics.stats", "SchedulerStats", "num_running_reqs kv_cache_usage", "counts of a step"),
    ("vllm.v1.metrics.stats", "SchedulerStats", "prefix_cache_stats", "counts of a step"),
    ("vllm.v1.metrics.stats", "PrefixCacheStats", "preempted_queries preempted_hits", "recomputed tokens"),
    ("vllm.v1.metrics.stats", "BaseCacheStats", "queries hits", "prompt tokens and cached ones"),
    (
        "vllm.v1.metrics.stats",
        "IterationStats",
        "num_generation_tokens finished_requests",
        "counts of a step",
    ),
    ("vllm.v1.metrics.stats", "IterationStats", "num_preempted_reqs", "preemptions"),
    ("vllm.v1.metrics.stats", "IterationStats", "inter_token_latencies_iter", "engine.vllm_metrics"),
    ("vllm.v1.metrics.loggers", "PrometheusStatLogger", "record", "counts of a step"),
    ("vllm.v1.metrics.loggers", "PrometheusStatLogger", "log_engine_initialized", "a logger of our own"),
    ("vllm.v1.metrics.loggers", "PrometheusStatLogger", "record_sleep_state", "a logger of our own"),
    ("vllm.v1.metrics.ray_wrappers", "", "ray_metrics RayPrometheusStatLogger", "engine.vllm_metrics"),
    ("vllm.envs", "", "VLLM_ENABLE_V1_MULTIPROCESSING VLLM_LOGGING_LEVEL VLLM_NO_USAGE_STATS", "environment"),
    ("vllm.envs", "", "VLLM_CPU_KVCACHE_SPACE VLLM_CPU_OMP_THREADS_BIND", "environment of CPU engines"),
    ("vllm.envs", "", "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "engine.max_model_len beyond the model's context"),
)


@cache
def parsed(module: str) -> ast.Module | None:
    assert VLLM is not None
    path = VLLM.parent / module.replace(".", "/")
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return None


def names_of(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    """Names that are defined, assigned, imported, or written as text: vLLM imports some lazily by name."""
    for part in ast.walk(node):
        match part:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name
            case ast.Constant(value=str(text)):
                yield text


def names_in(module: str, holder: str) -> set[str]:
    """The names of a module, or of a class of it. A class of another module has none."""
    tree = parsed(module)
    if tree is None:
        return set()
    if not holder:
        return set(names_of(tree))
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == holder]
    return {name for node in classes for name in names_of(node)}


def imported() -> Iterator[tuple[str, str]]:
    """What this project's modules import from vLLM: the module, and the name."""
    for path in sorted(OWN.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm":
                yield from ((node.module or "", alias.name) for alias in node.names)


def missing_of(module: str, holder: str, names: str, purpose: str) -> list[str]:
    where = f"{module}.{holder}".rstrip(".")
    return [
        f"{where} has no {name}, which serves {purpose}"
        for name in names.split()
        if name not in names_in(module, holder)
    ]


def test_vllm_has_every_name_that_is_imported() -> None:
    pairs = list(imported())
    assert ("vllm.v1.engine.llm_engine", "LLMEngine") in pairs
    missing = [
        f"{module} has no {name}"
        for module, name in pairs
        if name not in names_in(module, "") and parsed(f"{module}.{name}") is None
    ]
    assert missing == [], "the installed vLLM lacks names that magpie_ray/engine/vllm imports"


def test_vllm_has_every_name_that_is_taken_of_its_objects() -> None:
    missing = [line for used in USED for line in missing_of(*used)]
    assert missing == [], "the installed vLLM lacks names that magpie_ray/engine/vllm uses"


def test_vllm_has_every_argument_and_setting_that_is_given() -> None:
    given = VllmSettings(engine=EngineConfig(), model="m", revision=None, device="cpu", seed=0, seeded=True)
    arguments = " ".join(engine_args(given))
    ours = {"first_tokens", "first_line_only", "weight"}
    settings = " ".join(set(SamplingSettings.model_fields) - ours)
    missing = [
        *missing_of("vllm.engine.arg_utils", "EngineArgs", arguments, "the section engine"),
        *missing_of("vllm.sampling_params", "SamplingParams", settings, "the section sampling"),
    ]
    assert missing == []


def test_vllms_second_model_runner_takes_as_many_logit_biases_as_it_is_given() -> None:
    tree = parsed("vllm.v1.worker.gpu.sample.logit_bias")
    assert tree is not None
    [limit] = [
        node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        if [name.id for name in node.targets if isinstance(name, ast.Name)] == ["MAX_NUM_LOGIT_BIAS_TOKENS"]
    ]
    assert isinstance(limit, int)
    assert limit >= MAX_BIASES


def test_a_name_that_is_gone_is_told_with_what_it_serves() -> None:
    assert missing_of("vllm.outputs", "RequestOutput", "finished vanished", "completions") == [
        "vllm.outputs.RequestOutput has no vanished, which serves completions"
    ]
    assert len(missing_of("vllm.nowhere", "", "a b", "nothing")) == 2


def test_vllm_is_of_a_version_that_was_tried() -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    [vllm] = [Requirement(text) for text in extras["gpu"] if Requirement(text).name == "vllm"]
    names = {d.lower() for d in importlib.metadata.packages_distributions().get("vllm", ())}
    versions = [importlib.metadata.version(name) for name in names & {"vllm", "vllm-cpu"}]
    assert versions
    assert all(version.split("+")[0] in vllm.specifier for version in versions)
