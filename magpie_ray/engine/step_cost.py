"""What a step of an engine costs on a GPU: a roofline of its matrices, and the cache that attention reads."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StepCost:
    """Seconds, per step and per token.

    overhead: launching and scheduling one step. weights: reading all weights once. token: the arithmetic of
    one token's matrices. context_token: reading the keys and values of one token of context. A step reads
    the weights while it computes, so that the slower of the two counts: tokens are free until then.
    """

    overhead: float
    weights: float
    token: float
    context_token: float

    def seconds(self, *, tokens: int, context_tokens: int) -> float:
        """A step over so many tokens, read or written, whose sequences have so much context in all."""
        return self.overhead + max(self.weights, tokens * self.token) + context_tokens * self.context_token


# One token a step, nothing else: virtual time is the number of steps.
UNIT_COST = StepCost(overhead=1.0, weights=0.0, token=0.0, context_token=0.0)
