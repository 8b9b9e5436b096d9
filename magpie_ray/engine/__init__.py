"""Inference engines behind one protocol.

Read in this order: protocol (Engine and the values it exchanges), vllm/ (args, engine, stats), simulated/ (an
engine in virtual time, with step_cost), then message_heads, first_tokens and token_bytes (rules for the first
tokens of a message, over any engine). Invariants: generation knows only the protocol; only vllm/ imports
vLLM, and only when an engine starts.
"""

from magpie_ray.engine.protocol import Engine

__all__ = ["Engine"]
