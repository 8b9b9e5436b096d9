"""The ScoringEngine protocol: numbers about a prompt, and the values that it exchanges.

A model that writes gives the log-probabilities of asked tokens as the next one (`choice`). A pooling model
gives a vector for the whole prompt: the logits of a reward model (`reward`), or an embedding (`embed`).
Invariants are those of the Engine protocol: `step` is only called while a request is outstanding, and one
thread drives an engine.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from magpie_ray.counters import EngineStats
from magpie_ray.engine.protocol import EngineFigures

# Tokens that one request may ask about; vLLM's limit.
MAX_ASKED_TOKENS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRequest:
    """One prompt. asked: the tokens whose log-probabilities are wanted; () for a pooling model."""

    request_id: int
    prompt_token_ids: list[int]
    asked: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """The numbers of one request: one for each asked token in order, or the vector of the pooling model."""

    request_id: int
    numbers: Sequence[float]


class ScoringEngine(Protocol):
    """A batching engine. Every error is an EngineError; after one the engine is not used again.

    A prompt may have `longest_prompt` tokens at most. vector_size: of a pooling model's vectors; None for a
    model that writes.
    """

    @property
    def figures(self) -> EngineFigures: ...

    @property
    def longest_prompt(self) -> int: ...

    @property
    def vector_size(self) -> int | None: ...

    @property
    def outstanding(self) -> int:
        """Requests submitted and not yet returned by `step`."""

    def submit(self, request: ScoreRequest) -> None: ...

    def step(self) -> list[Score]: ...

    def abort(self, request_ids: Collection[int]) -> None:
        """Drop outstanding requests: `step` returns nothing of them."""

    def stats(self) -> EngineStats:
        """Totals since the engine started. A score counts as one generated token."""

    def close(self) -> None: ...
