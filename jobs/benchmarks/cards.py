"""GPUs as the simulation knows them: data sheets, what vLLM could hold on one, and what a step would cost.

No figure here was measured on a GPU by this project. A step's cost is the roofline of engine/step_cost.py.
"""

from dataclasses import dataclass

from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.step_cost import StepCost
from magpie_ray.planning.gpus import GPUS, Gpu

# Llama-3.1-8B in bf16: parameters, and keys and values of a token (32 layers, 8 heads of 128, twice 2 bytes).
PARAMETERS = 8.03e9
CACHE_BYTES = 2 * 32 * 8 * 128 * 2
_MAX_MODEL_LEN = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A GPU with the 8B model on it. cache_bytes: keys and values of one token."""

    name: str
    gpu: Gpu
    max_num_seqs: int
    kv_cache_tokens: int
    max_num_batched_tokens: int
    cache_bytes: int = CACHE_BYTES

    @property
    def figures(self) -> EngineFigures:
        return EngineFigures(
            max_num_seqs=self.max_num_seqs,
            kv_cache_tokens=self.kv_cache_tokens,
            max_model_len=_MAX_MODEL_LEN,
        )

    @property
    def cost(self) -> StepCost:
        return StepCost.roofline(
            bandwidth=self.gpu.bandwidth,
            arithmetic=self.gpu.arithmetic,
            weight_bytes=2 * PARAMETERS,
            parameters=PARAMETERS,
            cache_bytes_per_token=self.cache_bytes,
        )


# max_num_seqs: vLLM's defaults for offline use. Cache: on an H200 what 0.92 of the memory leaves; on a GPU of
# 24 GB what vLLM reported for this model (vllm-project/vllm issue 10517: 1,952 blocks).
H200 = Card(
    name="H200",
    gpu=GPUS["H200"],
    max_num_seqs=GPUS["H200"].max_num_seqs,
    kv_cache_tokens=860_000,
    max_num_batched_tokens=16384,
)
# So small a batch prefills in steps that take the time of the weights anyway, unless it prefills all at once.
L4 = Card(
    name="L4, 24 GB",
    gpu=GPUS["L4"],
    max_num_seqs=GPUS["L4"].max_num_seqs,
    kv_cache_tokens=31_232,
    max_num_batched_tokens=256,
)
