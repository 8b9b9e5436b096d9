"""GPUs as the simulation knows them: what vLLM could hold on one, and what a step would cost.

No figure here was measured on a GPU by this project. The arithmetic is a roofline over the vendor's peak
figures; how much of the peak is reached, and the overhead of a step, are assumed so that one published
measurement comes out: Llama-3.1-8B in bf16 with vLLM 0.23 on an A100 40GB decodes a single request at 75
tokens/s, 77% of its memory bandwidth (johnmusgrave.com, "vLLM throughput-latency sweep on NVIDIA A100").
"""

from dataclasses import dataclass

from magpie_ray.engine.protocol import EngineFigures
from magpie_ray.engine.step_cost import StepCost

# Llama-3.1-8B in bf16: parameters, and keys and values of a token (32 layers, 8 heads of 128, twice 2 bytes).
PARAMETERS = 8.03e9
CACHE_BYTES = 2 * 32 * 8 * 128 * 2
_OF_BANDWIDTH, _OF_ARITHMETIC = 0.85, 0.6
_OVERHEAD_SECONDS = 1e-3
_MAX_MODEL_LEN = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A GPU with an 8B model on it. bandwidth: bytes/s; arithmetic: dense bf16 FLOP/s, as sold.

    max_num_batched_tokens: that its engine is given. cache_bytes: of a token.
    """

    name: str
    bandwidth: float
    arithmetic: float
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
        """Seconds of a step's parts."""
        bandwidth = self.bandwidth * _OF_BANDWIDTH
        return StepCost(
            overhead=_OVERHEAD_SECONDS,
            weights=2 * PARAMETERS / bandwidth,
            token=2 * PARAMETERS / (self.arithmetic * _OF_ARITHMETIC),
            context_token=self.cache_bytes / bandwidth,
        )


# vLLM's own limits for offline use on each. Cache: what 0.92 of the memory leaves on an H200; on a card of
# 24 GB what vLLM reported for this model on one (vllm-project/vllm issue 10517: 1,952 blocks).
H200 = Card(
    name="H200",
    bandwidth=4.8e12,
    arithmetic=989e12,
    max_num_seqs=1024,
    kv_cache_tokens=860_000,
    max_num_batched_tokens=16384,
)
# The prompts of a batch this small are read in steps that the weights take anyway, unless all in one.
L4 = Card(
    name="L4, 24 GB",
    bandwidth=300e9,
    arithmetic=121e12,
    max_num_seqs=256,
    kv_cache_tokens=31_232,
    max_num_batched_tokens=256,
)
