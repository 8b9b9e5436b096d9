"""The names of engine.extra: nothing there contradicts what other keys or this project decide."""

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from magpie_ray.config.loading import load_config, parse_config
from magpie_ray.errors import ConfigError

# Where, on what and in which order an engine works; who it is; whether its statistics come.
DECIDES = re.compile(
    "parallel|executor|world|rank|node|nnodes|master|port|address|addr|device|seed|scheduler|sched|queue|active_seqs|"
    "process|worker|backend|stats|headless|launcher|elastic|transfer|stream|runner|task|revision|tokenizer|^model|placement"
)
# Arguments of vLLM that look so, and that a user may set: they work inside one engine on its own GPUs.
REVIEWED = {
    "tokenizer_mode",  # part of the fingerprint
    *(
        "kv_transfer_config",
        "ec_transfer_config",
        "weight_transfer_config",
    ),  # offloading the cache uses the first
    "stream_interval",  # only complete messages are asked for
    *("decode_context_parallel_size", "dcp_comm_backend"),  # GPUs of the TP group
    *("enable_expert_parallel", "expert_placement_strategy", "disable_nccl_for_dp_synchronization"),
    *(
        "max_parallel_loading_workers",
        "ray_workers_use_nsight",
        "worker_extension_cls",
        "renderer_num_workers",
    ),
    *("moe_backend", "linear_backend", "sparse_indexer_topk_backend", "all2all_backend", "attention_backend"),
    *("offload_backend", "kv_offloading_backend", "mamba_backend"),
    *("gdn_prefill_backend", "kda_prefill_backend", "kda_decode_backend", "mm_encoder_attn_backend"),
    *("numa_bind_nodes", "enable_mm_processor_stats", "model_class_overrides", "model_impl"),
    *("model_loader_extra_config", "prefill_schedule_interval", "scheduling_policy"),
    *(
        "async_scheduling",
        "scheduler_reserve_full_isl",
        "max_num_scheduled_tokens",
        "max_long_partial_prefills",
    ),
    *("mm_processor_kwargs", "mm_processor_cache_gb", "mm_processor_cache_type", "mm_processor_device"),
    *("mm_device_do_normalize", "io_processor_plugin", "logits_processors", "max_lora_rank"),
}


def fields_of_engine_args() -> Iterator[str]:
    """Names of the fields of vLLM's EngineArgs, read from its source."""
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    source = Path(spec.submodule_search_locations[0], "engine/arg_utils.py").read_text()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == "EngineArgs":
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    yield statement.target.id


def refusal(name: str, value: object = 1) -> str:
    """The config's error about a name in engine.extra; "" where it is taken."""
    try:
        parse_config({"num_rows": 1, "engine": {"extra": {name: value}}})
    except ConfigError as exc:
        return str(exc)
    return ""


def test_every_argument_of_vllm_that_may_decide_where_and_how_an_engine_works_is_classified() -> None:
    names = set(fields_of_engine_args())
    assert len(names) > 100
    open_names = {name for name in names if DECIDES.search(name) and not refusal(name)}
    assert open_names - REVIEWED == set(), "own them in config/engine_extra.py, or add them to REVIEWED"


def test_what_was_reviewed_is_taken() -> None:
    assert {name for name in REVIEWED if refusal(name)} == set()


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("disable_log_stats", "left out: an engine without statistics can't be told from one that hangs"),
        ("disable-log-stats", "left out: an engine without statistics"),
        ("distributed_executor_backend", "left out: engine.tensor_parallel_size and engine.pipeline_para"),
        ("prefill_context_parallel_size", "left out: engine.tensor_parallel_size"),
        ("data_parallel_size", "set with cluster.num_actors"),
        ("data_parallel_rank", "left out: each actor runs one engine, and cluster.num_actors says"),
        ("nnodes", "left out: engine.tensor_parallel_size"),
        ("device_ids", "left out: engine.tensor_parallel_size"),
        ("worker_cls", "left out: engine.device chooses it"),
        ("scheduler_cls", "left out: engine.max_num_seqs and the section rounds"),
        ("max_num_active_seqs", "set with engine.max_num_seqs"),
        ("model_weights", "set with model.name"),
        ("runner", "left out: the engine of a build continues token ids"),
        ("skip_tokenizer_init", "needs its tokenizer"),
        ("vllm_metrics", "set with engine.vllm_metrics"),
    ],
)
def test_a_name_that_is_decided_elsewhere_is_refused_with_what_decides_it(name: str, remedy: str) -> None:
    message = refusal(name)
    assert f"engine.extra.{name}: got 1, must be" in message
    assert remedy in message


def test_it_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match=r"engine\.extra\.disable_log_stats: got true, must be left out"):
        load_config(None, ["num_rows=1", "engine.extra.disable_log_stats=true"])
