"""Inference engines behind one protocol.

Read in this order: protocol (Engine and the values it exchanges), vllm/ (args, engine, stats), simulated/ (an
engine in virtual time, with step_cost), then first_tokens, token_bytes and vllm/logits_processor (rules for
the first tokens of a message). Invariants: generation knows only the protocol; only vllm/ imports vLLM and
torch, and only when an engine starts.
"""

from magpie_ray.engine.protocol import Engine

__all__ = ["Engine"]
