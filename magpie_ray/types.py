"""Frozen values that several rooms exchange: partitions, stored objects, prompts, messages, rows, rejections.

Invariants: a value is picklable, never changes after its creation, and has no behaviour but derived views.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, NonNegativeInt

Role = Literal["user", "assistant"]
ROLES: tuple[Role, ...] = ("user", "assistant")
FinishReason = Literal["stop", "length"]
# What a run does about an existing build.
IfExists = Literal["resume", "skip", "fail"]
# What export writes of one row; preference pairs are made of several answers.
RowFormat = Literal["messages", "sharegpt", "alpaca"]
# Which answer stands beside the best one of a row.
Pairing = Literal["best-worst", "best-random"]
ExportFormat = Literal["messages", "sharegpt", "alpaca", "preference"]

DATA_PREFIX = "data/"

# Models whose files are in this package: the name in a config, and the folder.
BUILTIN_MODELS = {"builtin:tiny-chat": "tiny_chat"}

_EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Partition:
    """Rows start..stop-1, inside one grid cell: one Parquet file, the unit of commit, retry and resume."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"a partition needs 0 <= start < stop, got {self.start}..{self.stop}")

    @property
    def num_rows(self) -> int:
        return self.stop - self.start

    @property
    def key(self) -> str:
        """Object key under the output, named by the first row so that it is the same in every run."""
        return f"{DATA_PREFIX}part-{self.start:012d}.parquet"

    def __str__(self) -> str:
        return f"rows {self.start}..{self.stop - 1}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object as a listing shows it. `key` is relative to the output; `size` is in bytes.

    modified: the time of writing in seconds since 1970 (UTC), by the store's clock; None where there is no
    clock. A copy has the time of copying.
    """

    key: str
    size: int
    modified: float | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemPrompt:
    """A system prompt of the config or of an input.

    weight: a probability; those of the config's prompts sum to one. That of an input has none of its own.
    """

    text: str
    weight: float = 1.0
    key: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """The input of a row: its place among the inputs of the build, from 0, and the columns that rows keep.

    kept: a pyarrow.RecordBatch of one row; None where rows keep no column.
    """

    input_id: int
    kept: Any = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A generated, accepted message of a finished row. `reasoning` stood before the text."""

    role: Role
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A finished row. `attempt` counts from 1. `system_prompt` is None when the row has none.

    sampling_key: the index of its sampling among the build's. input: None where the build has no inputs.
    given: how many of the messages a source gave; those behind them are generated, and without any the row is
    unanswered. answers: of a row with several, the row with each of them; its own messages are the given
    ones.
    """

    row_id: int
    messages: tuple[Message, ...]
    system_prompt: SystemPrompt | None
    attempt: int
    sampling_key: int = 0
    input: Input | None = None
    given: int = 0
    answers: tuple["Row", ...] = ()

    @property
    def each(self) -> tuple["Row", ...]:
        """The row with each of its answers."""
        return self.answers or (self,)

    @property
    def generated(self) -> tuple[Message, ...]:
        """The messages that are not given, of all answers."""
        return tuple(message for row in self.each for message in row.messages[row.given :])

    @property
    def unanswered(self) -> int:
        """Answers that the row lacks."""
        return sum(len(row.messages) == row.given for row in self.each)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredRow:
    """A finished row of a score pass: the values of its columns by name, None where there is none.

    A label is a str and its probability a float. A reward is a float, or a list of them, one for each
    response of the row. An embedding is an array of float32. tokens: that the engine made, one for each
    request. kept: as in Input.
    """

    row_id: int
    values: Mapping[str, object]
    tokens: int = 0
    kept: Any = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejection:
    """A rejected attempt: the message, the reason, and the tokens lost.

    text: of the rejected message, "" when there was no room for one. messages: those before the rejected one.
    Tokens are those of dropped messages, without the turns that the next attempt keeps.
    input_id: of the row's input, None where rows have none.
    """

    row_id: int
    attempt: int
    role: Role
    turn: int
    reason: str
    text: str
    messages: tuple[Message, ...] = ()
    system_prompt: SystemPrompt | None = None
    input_id: int | None = None
    user_tokens: int
    assistant_tokens: int

    @property
    def place(self) -> int:
        """Of the rejected message in its conversation, from 0."""
        return 2 * self.turn - (2 if self.role == "user" else 1)

    @property
    def example(self) -> str:
        """The beginning of the message."""
        return self.text[:_EXAMPLE_CHARACTERS]


# What becomes of a row: finished, or an attempt at it rejected.
Finished: TypeAlias = Row | ScoredRow
Outcome: TypeAlias = Finished | Rejection


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionRecord:
    """A committed file: the facts in its footer, and its size as listed, in bytes.

    sha256: of its bytes, in hex, known from their writer; None where the record comes from the footer alone.
    fingerprint: of the file's build. rejected: rejected attempts by reason; Tally.attempts has all.
    rejected_at: likewise by the place of the rejected message: the first user's, its answer, and so on; empty
    in files of earlier versions. further, unanswered: as in Tally. Tokens are sums over accepted and rejected
    attempts, by the role of the generated message.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # where a stored one is read

    start: NonNegativeInt
    stop: NonNegativeInt
    fingerprint: str = ""
    run: NonNegativeInt
    size: NonNegativeInt = 0
    rejected: Mapping[str, NonNegativeInt] = field(default_factory=dict)
    rejected_at: tuple[NonNegativeInt, ...] = ()
    further: NonNegativeInt = 0
    unanswered: NonNegativeInt = 0
    user_tokens: NonNegativeInt = 0
    assistant_tokens: NonNegativeInt = 0
    sha256: str | None = field(default=None, compare=False)

    @property
    def partition(self) -> Partition:
        return Partition(start=self.start, stop=self.stop)

    @property
    def rows(self) -> int:
        return self.stop - self.start
