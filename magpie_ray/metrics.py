"""What is measured, as mergeable values.

A Tally accounts for every attempt at a set of rows. Tallies add up: over a partition, an actor, a run, in any
order. Where the numbers go (footer, manifest, progress line) is decided by whoever holds them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
