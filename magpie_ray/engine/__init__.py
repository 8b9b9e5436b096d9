"""Inference engines behind two protocols: one that writes messages, one that gives numbers about prompts.

Read in this order: protocol (Engine and the values it exchanges), scoring (ScoringEngine, likewise), vllm/
(args, llm, engine, scoring, stats), simulated/ (an engine in virtual time, with step_cost, and one for
scores), then message_heads, first_tokens and token_bytes (rules for the first tokens of a message, over any
engine). Invariants: generation and scoring know only the protocols; only vllm/ imports vLLM, and only when an
engine starts.
"""

from magpie_ray.engine.protocol import Engine
from magpie_ray.engine.scoring import ScoringEngine

__all__ = ["Engine", "ScoringEngine"]
