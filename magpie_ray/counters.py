"""Counts that add up: attempts at rows (Tally) and the work of engines (EngineStats).

Invariant: sums over a partition, an actor or a run come out the same in any order and grouping.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain, repeat
from operator import attrgetter, sub
from typing import Self

from magpie_ray.types import Finished, PartitionRecord, Rejection, ScoredRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Accepted rows, rejected attempts by reason, and the tokens generated for both, by role.

    rejected_at: rejected attempts by the place of the rejected message: the first user's, its answer, and so
    on. further: answers that a pass asks for beyond one a row. unanswered: those of all that no accepted
    attempt has given, or rows that lack a value.
    """

    rows: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejected_at: tuple[int, ...] = ()
    further: int = 0
    unanswered: int = 0
    user_tokens: int = 0
    assistant_tokens: int = 0

    @classmethod
    def of_row(cls, row: Finished) -> Self:
        """A row, whose answers or values were accepted or are lacking."""
        if isinstance(row, ScoredRow):
            lacks = any(value is None for value in row.values.values())
            return cls(rows=1, unanswered=int(lacks), assistant_tokens=row.tokens)
        tokens = Counter[str]()
        for message in row.generated:
            tokens[message.role] += message.completion_tokens
        return cls(
            rows=1,
            further=len(row.each) - 1,
            unanswered=row.unanswered,
            user_tokens=tokens["user"],
            assistant_tokens=tokens["assistant"],
        )

    @classmethod
    def of_rejection(cls, rejection: Rejection) -> Self:
        """One rejected attempt."""
        return cls(
            rejected={rejection.reason: 1},
            rejected_at=(0,) * rejection.place + (1,),
            user_tokens=rejection.user_tokens,
            assistant_tokens=rejection.assistant_tokens,
        )

    @classmethod
    def sum(cls, tallies: Iterable["Tally | PartitionRecord"]) -> Self:
        """The sum. A PartitionRecord counts with all attempts at its rows."""
        rows = further = unanswered = user_tokens = assistant_tokens = 0
        rejected, rejected_at = dict[str, int](), list[int]()
        for tally in tallies:
            rows += tally.rows
            further += tally.further
            unanswered += tally.unanswered
            user_tokens += tally.user_tokens
            assistant_tokens += tally.assistant_tokens
            for reason, number in tally.rejected.items():
                rejected[reason] = rejected.get(reason, 0) + number
            rejected_at += [0] * (len(tally.rejected_at) - len(rejected_at))
            for place, number in enumerate(tally.rejected_at):
                rejected_at[place] += number
        return cls(
            rows=rows,
            rejected=rejected,
            rejected_at=tuple(rejected_at),
            further=further,
            unanswered=unanswered,
            user_tokens=user_tokens,
            assistant_tokens=assistant_tokens,
        )

    def since(self, before: "Tally") -> "Tally":
        """The attempts added after `before`, an earlier state of this tally."""
        return Tally(
            rows=self.rows - before.rows,
            rejected={
                reason: more
                for reason, number in self.rejected.items()
                if (more := number - before.rejected.get(reason, 0)) > 0
            },
            rejected_at=tuple(map(sub, self.rejected_at, chain(before.rejected_at, repeat(0)))),
            further=self.further - before.further,
            unanswered=self.unanswered - before.unanswered,
            user_tokens=self.user_tokens - before.user_tokens,
            assistant_tokens=self.assistant_tokens - before.assistant_tokens,
        )

    @property
    def attempts(self) -> int:
        """Accepted and rejected."""
        return self.accepted + self.rejections

    @property
    def accepted(self) -> int:
        """Accepted attempts: one a row, or one an answer."""
        return self.rows + self.further - self.unanswered

    @property
    def rejections(self) -> int:
        """Rejected attempts, whatever the reason."""
        return sum(self.rejected.values())

    @property
    def tokens(self) -> int:
        """Generated for messages of both roles."""
        return self.user_tokens + self.assistant_tokens


def work_of(job: str) -> str:
    """What the tokens of a job's tally stand for: the requests of `score`, which take a token each."""
    return "requests" if job == "score" else "tokens"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """The work of one engine or several since they started.

    slots: batch size times steps. running: requests in the batch, summed over steps. kv_tokens: tokens that
    the KV cache holds times steps. kv_used_tokens: tokens of it that running requests occupied, summed over
    steps. prompt_tokens, generated_tokens: of all requests, each counted once. cached_tokens: prompt tokens
    found in the cache. known_tokens: prompt tokens that the engine had prefilled or generated before.
    recomputed_tokens: prefilled again after a preemption.
    """

    steps: int = 0
    slots: int = 0
    running: int = 0
    kv_tokens: int = 0
    kv_used_tokens: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    known_tokens: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    preemptions: int = 0

    @classmethod
    def sum(cls, engines: Iterable["EngineStats"]) -> Self:
        columns = zip(*map(_figures, engines), strict=True)
        return cls(**dict(zip(_NAMES, map(sum, columns), strict=False)))  # of no engines: all are 0

    def since(self, before: "EngineStats") -> "EngineStats":
        """The work added after `before`, an earlier state of the same engines."""
        return EngineStats(**dict(zip(_NAMES, map(sub, _figures(self), _figures(before)), strict=True)))

    def recorded(self) -> dict[str, int]:
        """The fields that run records and `--json` hold: tokens are there by role, in tallies."""
        fields = asdict(self)
        del fields["prompt_tokens"], fields["generated_tokens"]
        return fields

    @property
    def occupancy(self) -> float:
        """The mean share of the batch that was taken, 0..1."""
        return self.running / max(1, self.slots)

    @property
    def kv_use(self) -> float:
        """The mean share of the KV cache that running requests occupied, 0..1."""
        return self.kv_used_tokens / max(1, self.kv_tokens)

    @property
    def prefix_hits(self) -> float:
        """The share of known prompt tokens that the cache still held, 0..1."""
        return min(1.0, self.cached_tokens / max(1, self.known_tokens))

    @property
    def read_again(self) -> int:
        """Known tokens that were prefilled again, after an eviction or a preemption."""
        return max(0, self.known_tokens - self.cached_tokens) + self.recomputed_tokens

    def __str__(self) -> str:
        return (
            f"{self.steps:,} engine steps, the batch {self.occupancy:.0%} filled, "
            f"the KV cache {self.kv_use:.0%}; {self.prefix_hits:.1%} of "
            f"known prompt tokens found in the cache, {self.read_again:,} read again; "
            f"{self.preemptions:,} preemptions"
        )


# The driver adds up every report of every worker: by asdict that took 1 ms of a core each.
_NAMES = tuple(field.name for field in fields(EngineStats))
_figures = attrgetter(*_NAMES)
