"""What is measured, as mergeable values.

A Tally accounts for every attempt at a set of rows, an EngineUse for what engines did for them. Both add up:
over a partition, an actor, a run, in any order. Where the numbers go (footer, manifest, progress line) is
decided by whoever holds them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from magpie_ray.types import PartitionRecord, Rejection, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Accepted rows, rejected attempts by reason, and the tokens generated for both, by role."""

    rows: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    user_tokens: int = 0
    assistant_tokens: int = 0

    @classmethod
    def of_row(cls, row: Row) -> Self:
        """The accepted attempt."""
        tokens = Counter[str]()
        for message in row.messages:
            tokens[message.role] += message.completion_tokens
        return cls(rows=1, user_tokens=tokens["user"], assistant_tokens=tokens["assistant"])

    @classmethod
    def of_rejection(cls, rejection: Rejection) -> Self:
        """A rejected attempt: no row, its reason, its tokens."""
        return cls(
            rejected={rejection.reason: 1},
            user_tokens=rejection.user_tokens,
            assistant_tokens=rejection.assistant_tokens,
        )

    @classmethod
    def of_record(cls, record: PartitionRecord) -> Self:
        """A committed partition."""
        return cls(
            rows=record.rows,
            rejected=record.rejected,
            user_tokens=record.user_tokens,
            assistant_tokens=record.assistant_tokens,
        )

    @classmethod
    def sum(cls, tallies: Iterable["Tally"]) -> Self:
        """All of them together."""
        rows = user_tokens = assistant_tokens = 0
        rejected = Counter[str]()
        for tally in tallies:
            rows += tally.rows
            user_tokens += tally.user_tokens
            assistant_tokens += tally.assistant_tokens
            rejected.update(tally.rejected)
        return cls(
            rows=rows, rejected=dict(rejected), user_tokens=user_tokens, assistant_tokens=assistant_tokens
        )

    @property
    def attempts(self) -> int:
        """Accepted and rejected."""
        return self.rows + sum(self.rejected.values())

    @property
    def tokens(self) -> int:
        """Generated for messages of both roles."""
        return self.user_tokens + self.assistant_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineUse:
    """How well engines were used.

    slots: places of the batch, summed over the steps; running: those of them that were taken. kv_tokens: what
    the cache holds, summed likewise; kv_used_tokens: what requests in the batch held of it. known_tokens: of
    prompts, those that had been read or written before; cached_tokens: those that the cache still held.
    recomputed_tokens: read again after a preemption.
    """

    steps: int = 0
    slots: int = 0
    running: int = 0
    kv_tokens: int = 0
    kv_used_tokens: int = 0
    known_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0

    @classmethod
    def sum(cls, uses: Iterable["EngineUse"]) -> Self:
        """All of them together."""
        total = Counter[str]()
        for use in uses:
            total.update(asdict(use))
        return cls(**total)

    def since(self, before: "EngineUse") -> "EngineUse":
        """What was added after `before`, an earlier state of the same engines."""
        now, then = asdict(self), asdict(before)
        return EngineUse(**{name: now[name] - then[name] for name in now})

    @property
    def occupancy(self) -> float:
        """The mean part of the batch that was taken, 0..1."""
        return self.running / max(1, self.slots)

    @property
    def kv_use(self) -> float:
        """The mean part of the KV cache that requests in the batch held, 0..1."""
        return self.kv_used_tokens / max(1, self.kv_tokens)

    @property
    def prefix_hits(self) -> float:
        """The part of what had been read or written before that the cache still held, 0..1."""
        return min(1.0, self.cached_tokens / max(1, self.known_tokens))

    @property
    def read_again(self) -> int:
        """Tokens of prompts that were read although they had been before."""
        return max(0, self.known_tokens - self.cached_tokens) + self.recomputed_tokens

    def __str__(self) -> str:
        return (
            f"{self.steps:,} engine steps, the batch {self.occupancy:.0%} filled, "
            f"the KV cache {self.kv_use:.0%}; {self.prefix_hits:.1%} of "
            f"known prompt tokens found in the cache, {self.read_again:,} read again; "
            f"{self.preemptions:,} preemptions"
        )
