"""The Engine protocol: what rounds needs of an inference engine, and nothing more.

`submit` queues a request, `step` advances every running one by about a token and returns what ended.
`step` is only called while something is outstanding. An engine is driven by one thread.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from magpie_ray.types import Completion, EngineFigures, Request


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """Totals since the engine started. Tokens of prompts are counted once per request.

    running: requests in the batch, summed over steps; kv_used_tokens: what they hold of the cache, summed
    likewise. recomputed_tokens: read again after a preemption.
    """

    steps: int = 0
    running: int = 0
    kv_used_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0

    @property
    def work(self) -> int:
        """Tokens read and written: what stands still when the engine does, whether it steps or not."""
        return self.prompt_tokens + self.generated_tokens


class Engine(Protocol):
    """A continuous-batching engine. Errors are EngineError; after one the engine is not used again."""

    @property
    def figures(self) -> EngineFigures: ...

    @property
    def outstanding(self) -> int:
        """Requests submitted and not yet returned by `step`."""

    def submit(self, request: Request) -> None: ...

    def step(self) -> list[Completion]: ...

    def refresh(self, token_ids: list[int]) -> None:
        """Count the cached prefix of these as used now, at the cost of a token or so. Not outstanding."""

    def abort(self, request_ids: Collection[int]) -> None:
        """Give up outstanding requests: `step` returns nothing of them."""

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...
