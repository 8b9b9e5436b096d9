"""The Engine protocol: all that generation needs of an inference engine, and the values they exchange.

Invariants: `submit` queues a request, `step` advances every running one by about a token and returns those
that ended. `step` is only called while a request is outstanding. One thread drives an engine.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from magpie_ray.config.sampling import SamplingSettings, UserSettings
from magpie_ray.counters import EngineStats
from magpie_ray.types import FinishReason


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineFigures:
    """What an engine can hold: sequences in a batch, tokens of KV cache, tokens of one sequence."""

    max_num_seqs: int
    kv_cache_tokens: int
    max_model_len: int

    def __str__(self) -> str:
        return (
            f"{self.max_num_seqs} sequences at once, {self.kv_cache_tokens:,} tokens of KV cache, "
            f"{self.max_model_len:,} tokens a sequence"
        )


# Compared and hashed as an object: engines keep their own form of each, of which a build has a few.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False, weakref_slot=True)
class Sampling:
    """How one role's messages are sampled, as the config has it, and the endings of the chat format.

    An engine ignores the settings' first_tokens, which message_heads applies. logit_biases: added to the
    logits of these token ids throughout the message.
    """

    settings: SamplingSettings
    logit_biases: Mapping[int, float] = field(default_factory=dict)
    stop_token_ids: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()

    @property
    def first_line_only(self) -> bool:
        """Whether a message ends at its first line break. Answers never do."""
        return isinstance(self.settings, UserSettings) and self.settings.first_line_only


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One message to generate. `seed` is None unless the build is reproducible."""

    request_id: int
    prompt_token_ids: list[int]
    sampling: Sampling
    seed: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One generated message.

    token_ids: the message alone, without the token or string that ended it. num_tokens: all tokens that the
    engine generated for the message, the ending included.
    """

    request_id: int
    token_ids: list[int]
    finish_reason: FinishReason
    num_tokens: int


class Engine(Protocol):
    """A continuous-batching engine. Every error is an EngineError; after one the engine is not used again."""

    @property
    def figures(self) -> EngineFigures: ...

    @property
    def outstanding(self) -> int:
        """Requests submitted and not yet returned by `step`."""

    def submit(self, request: Request) -> None: ...

    def step(self) -> list[Completion]: ...

    def refresh(self, token_ids: list[int]) -> None:
        """Count the cached prefix of these tokens as used now, at the cost of about one token."""

    def abort(self, request_ids: Collection[int]) -> None:
        """Drop outstanding requests: `step` returns nothing of them."""

    def stats(self) -> EngineStats:
        """Totals since the engine started; known_tokens only of prompts that no caller wrote."""

    def close(self) -> None: ...
