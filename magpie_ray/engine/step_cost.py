"""The seconds of an engine's step: a roofline of its matrices, and the KV cache that attention reads."""

from dataclasses import dataclass
from typing import Self

# The most that real kernels reach of a data sheet's figures, and the time to launch and schedule a step. With
# these, one published measurement comes out: Llama-3.1-8B in bf16 with vLLM 0.23 on an A100 40GB decodes a
# single request at 75 tokens/s, 77% of its memory bandwidth (johnmusgrave.com, "vLLM throughput-latency sweep
# on NVIDIA A100").
_BANDWIDTH_REACHED, _ARITHMETIC_REACHED = 0.85, 0.6
_OVERHEAD_SECONDS = 1e-3


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """Seconds, per step and per token.

    overhead: launching and scheduling one step. weights: reading all weights once. token: the arithmetic of
    one token's matrices. context_token: reading the keys and values of one token of context. A step reads the
    weights while it computes, so the slower of the two counts: up to that point tokens are free.
    """

    overhead: float
    weights: float
    token: float
    context_token: float

    @classmethod
    def roofline(
        cls,
        *,
        bandwidth: float,
        arithmetic: float,
        weight_bytes: float,
        parameters: float,
        cache_bytes_per_token: float,
    ) -> Self:
        """By the GPU's data sheet, in bytes/s and FLOP/s, and the part of the model that lies on the GPU.

        parameters: those that a token passes through.
        """
        bandwidth, arithmetic = bandwidth * _BANDWIDTH_REACHED, arithmetic * _ARITHMETIC_REACHED
        return cls(
            overhead=_OVERHEAD_SECONDS,
            weights=weight_bytes / bandwidth,
            token=2 * parameters / arithmetic,
            context_token=cache_bytes_per_token / bandwidth,
        )

    def seconds(self, *, tokens: int, context_tokens: int) -> float:
        """A step that prefills or decodes `tokens`, in sequences with `context_tokens` of context in all."""
        return self.overhead + max(self.weights, tokens * self.token) + context_tokens * self.context_token


# One second a step: virtual time is the number of steps.
UNIT_COST = StepCost(overhead=1.0, weights=0.0, token=0.0, context_token=0.0)
