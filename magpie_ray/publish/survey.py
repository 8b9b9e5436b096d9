"""What a build's rows are like, as counts that add up: lengths, endings, first words, repeats, examples.

Pure: tables in, one frozen Survey out. What always holds: surveying the parts of a set of rows and adding the
surveys up gives what surveying them at once gives, in any order; memory grows with the rows surveyed by some
tens of bytes each, whatever they say.
"""

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from typing import Any, Generic, Self, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from magpie_ray.dataset.reader import Record, messages_of
from magpie_ray.types import Role

T = TypeVar("T")

MessageKey: TypeAlias = tuple[Role, int]
Histogram: TypeAlias = Mapping[int, int]

# Those of them that a build has are read; of `conversation` and `instruction` the first.
COLUMNS = (
    "row_id",
    "conversation",
    "instruction",
    "reasoning",
    "system_prompt",
    "system_prompt_key",
    "sampling_key",
    "finish_reasons",
    "completion_tokens",
    "attempt",
)

# In scripts written without spaces (Thai to Khmer, kana, Han) two characters stand for a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|['\u2019-](?=\w))*")
_WORD_CHARACTERS = 24
# An instruction's first two words are looked for so far.
_HEAD_CHARACTERS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Counts over `rows` rows. Histograms: how often each value occurs. Turns count from 1.

    tokens, characters: lengths of messages by role and turn; the token that ends a message counts.
    first_words: of instructions, casefolded; the second is "" where there is none.
    first_rows: the first row of each different instruction, by its digest of 64 bits. repeats: how often
    those occur that occur more than once. samples: rows to look at, in order.
    """

    rows: int = 0
    tokens: Mapping[MessageKey, Histogram] = field(default_factory=dict)
    characters: Mapping[MessageKey, Histogram] = field(default_factory=dict)
    finish_reasons: Mapping[MessageKey, Mapping[str, int]] = field(default_factory=dict)
    attempts: Histogram = field(default_factory=dict)
    system_prompts: Mapping[str | None, int] = field(default_factory=dict)
    samplings: Histogram = field(default_factory=dict)
    first_words: Mapping[tuple[str, str], int] = field(default_factory=dict)
    first_rows: Mapping[int, int] = field(default_factory=dict)
    repeats: Mapping[int, int] = field(default_factory=dict)
    samples: tuple[Record, ...] = ()

    @property
    def duplicates(self) -> int:
        """Rows whose instruction an earlier row has, to the letter."""
        return self.rows - len(self.first_rows)

    @property
    def message_keys(self) -> list[MessageKey]:
        """The role and turn of every kind of message, in the order of the conversation."""
        return sorted(self.tokens, key=lambda key: (key[1], key[0] == "assistant"))

    @classmethod
    def of_batch(cls, batch: pa.RecordBatch, *, samples: Container[int] = ()) -> Self:
        """Rows of a build, in COLUMNS. `samples`: row ids of which the rows themselves are kept."""
        names = set(batch.schema.names)
        ids = batch.column("row_id").to_pylist()
        told = {"tokens": batch.column("completion_tokens"), "finish": batch.column("finish_reasons")}
        texts = dict(_texts(batch))
        instructions = texts.get(("user", 1), pa.array([], pa.string())).to_pylist()
        digests = [_digest(text) for text in instructions]
        counts = Counter(digests)
        first_rows = dict(zip(reversed(digests), reversed(ids), strict=False))
        return cls(
            rows=len(ids),
            tokens=dict(_by_message(told["tokens"])),
            characters={key: _counts(pc.utf8_length(values)) for key, values in texts.items()},
            finish_reasons=dict(_by_message(told["finish"])),
            attempts=_counts(batch.column("attempt")),
            system_prompts=_counts(batch.column("system_prompt")),
            samplings=_counts(batch.column("sampling_key")) if "sampling_key" in names else {},
            first_words=Counter(first_words(text) for text in instructions),
            first_rows=first_rows,
            repeats={digest: number for digest, number in counts.items() if number > 1},
            samples=tuple(
                row
                for index in [index for index, row_id in enumerate(ids) if row_id in samples]
                for row in batch.slice(index, 1).to_pylist()
            ),
        )

    @classmethod
    def sum(cls, surveys: Iterable["Survey"]) -> Self:
        """All of them together; they have no rows in common."""
        rows = 0
        tokens, characters = _Nested[int](), _Nested[int]()
        finish_reasons = _Nested[str]()
        attempts, samplings = Counter[int](), Counter[int]()
        system_prompts, words = Counter[str | None](), Counter[tuple[str, str]]()
        first_rows, repeats = dict[int, int](), dict[int, int]()
        samples = dict[int, Record]()
        for survey in surveys:
            rows += survey.rows
            tokens.add(survey.tokens)
            characters.add(survey.characters)
            finish_reasons.add(survey.finish_reasons)
            attempts.update(survey.attempts)
            samplings.update(survey.samplings)
            system_prompts.update(survey.system_prompts)
            words.update(survey.first_words)
            for digest, row_id in survey.first_rows.items():
                known = first_rows.get(digest)
                times = survey.repeats.get(digest, 1) + (repeats.get(digest, 1) if known is not None else 0)
                if times > 1:
                    repeats[digest] = times
                first_rows[digest] = row_id if known is None else min(known, row_id)
            samples |= {_row_id(row): row for row in survey.samples}
        return cls(
            rows=rows,
            tokens=tokens.counts,
            characters=characters.counts,
            finish_reasons=finish_reasons.counts,
            attempts=attempts,
            samplings=samplings,
            system_prompts=system_prompts,
            first_words=words,
            first_rows=first_rows,
            repeats=repeats,
            samples=tuple(row for _, row in sorted(samples.items())),
        )


class _Nested(Generic[T]):
    """Counts by message, adding up."""

    def __init__(self) -> None:
        self.counts: dict[MessageKey, Counter[T]] = {}

    def add(self, counts: Mapping[MessageKey, Mapping[T, int]]) -> None:
        for key, more in counts.items():
            self.counts.setdefault(key, Counter()).update(more)


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """The rows whose instruction begins with `word`; `then`: the second words and their rows."""

    word: str
    rows: int
    then: Sequence[tuple[str, int]]


def word_tree(survey: Survey, *, first: int, second: int) -> Sequence[Branch]:
    """The `first` most frequent first words, each with the `second` most frequent next ones. "": no word."""
    by_word = dict[str, dict[str, int]]()
    for (word, after), rows in survey.first_words.items():
        by_word.setdefault(word, {})[after] = rows
    branches = [
        Branch(word=word, rows=sum(then.values()), then=_most_frequent(then)[:second])
        for word, then in by_word.items()
    ]
    return sorted(branches, key=lambda branch: (-branch.rows, branch.word))[:first]


def _most_frequent(words: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))


def quantile(histogram: Histogram, part: float) -> int:
    """The smallest value that a part (0..1) of all don't exceed. ValueError when there are none."""
    need, seen = part * sum(histogram.values()), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= need:
            return value
    raise ValueError("no values")


def mean(histogram: Histogram) -> float:
    """0 when there are none."""
    return sum(value * n for value, n in histogram.items()) / max(1, sum(histogram.values()))


def first_words(text: str) -> tuple[str, str]:
    """The first two words, casefolded; "" for one that is not there."""
    found = _WORD.finditer(text[:_HEAD_CHARACTERS].casefold())
    words = [match[0][:_WORD_CHARACTERS] for match, _ in zip(found, range(2), strict=False)]
    first, second = [*words, "", ""][:2]
    return first, second


def instruction_of(row: Record) -> str:
    """The text of the row's first user message."""
    return next((text for role, text in messages_of(row) if role == "user"), "")


def message_key(position: int) -> MessageKey:
    """Role and turn of a generated message by its place in its row, from 0."""
    return ("assistant" if position % 2 else "user"), position // 2 + 1


def _texts(batch: pa.RecordBatch) -> Iterable[tuple[MessageKey, pa.Array]]:
    """The texts of all messages, by role and turn, in row order; a system message in front is left out."""
    if "conversation" not in batch.schema.names:
        yield ("user", 1), batch.column("instruction")
        return
    conversations = batch.column("conversation")
    roles = pc.struct_field(conversations.flatten(), "role")
    # All rows of a build begin with their system message, or none does.
    begin = 1 if len(roles) and roles[0].as_py() == "system" else 0
    for key, messages in _slices(pc.list_slice(conversations, begin)):
        yield key, pc.struct_field(messages, "content")


def _slices(lists: pa.Array) -> Iterable[tuple[MessageKey, pa.Array]]:
    """The elements of a list column by their place in the list."""
    for position in count():
        values = pc.list_slice(lists, position, position + 1).flatten()
        if not len(values):
            return
        yield message_key(position), values


def _by_message(lists: pa.Array) -> Iterable[tuple[MessageKey, dict[Any, int]]]:
    return ((key, _counts(values)) for key, values in _slices(lists))


def _counts(values: pa.Array) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}


def _row_id(row: Record) -> int:
    return int(str(row["row_id"]))


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
