"""A survey of rows: counts of lengths, endings, first words and repeats that add up, and examples.

Pure: tables in, one frozen Survey out. Invariants: the surveys of the parts of a set of rows add up to the
survey of the whole set, in any order. A survey needs some tens of bytes of memory for each row, however long
its texts are.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import count
from types import MappingProxyType
from typing import Any, Self, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from magpie_ray.config.scoring import ScoreKind
from magpie_ray.dataset import columns
from magpie_ray.dataset.reader import Record, said_in
from magpie_ray.publish.first_words import first_words
from magpie_ray.publish.histogram import Histogram
from magpie_ray.publish.instruction_sample import SampledInstruction, merged, sample_of
from magpie_ray.publish.score_survey import score_counts
from magpie_ray.types import Role

MessageKey: TypeAlias = tuple[Role, int]

# Not surveyed: `conversation` has the response too, and the model is the same for all rows.
_UNREAD = ("response", "model_name", "prompt_tokens")
# A survey needs those of these columns that a build has, but not `instruction` beside `conversation`.
COLUMNS = (*(name for name in columns.COLUMNS if name not in _UNREAD), "responses")


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """Counts over `rows` rows. A histogram maps a value to the number of its occurrences.

    tokens, characters: lengths of messages by role and turn, from 1. A length in tokens includes the token
    that ends the message. first_words: the first two words of instructions, casefolded; "" stands for none.
    first_rows: the id of the first row with an instruction, by the instruction's 64-bit digest. repeats: the
    number of rows with an instruction, by digest, for instructions of several rows. labels: of a score pass,
    rows by column and label, None for no label. probabilities: of these labels, summed in millionths.
    rewards: rows by column and value. samples: whole rows, by row_id. instructions: a sample of instructions,
    to be compared with each other.
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
    labels: Mapping[str, Mapping[str | None, int]] = field(default_factory=dict)
    probabilities: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rewards: Mapping[str, Mapping[float, int]] = field(default_factory=dict)
    samples: tuple[Record, ...] = ()
    instructions: tuple[SampledInstruction, ...] = ()

    @property
    def duplicates(self) -> int:
        """The number of rows whose instruction equals that of an earlier row, letter by letter."""
        return sum(self.repeats.values()) - len(self.repeats)

    @property
    def message_keys(self) -> list[MessageKey]:
        """The role and turn of every kind of message, in the order of the conversation."""
        return sorted(self.tokens, key=lambda key: (key[1], key[0] == "assistant"))

    @classmethod
    def of_batch(
        cls,
        batch: pa.RecordBatch,
        *,
        samples: Collection[int] = (),
        answers: int = 0,
        scores: Mapping[str, ScoreKind] = MappingProxyType({}),
    ) -> Self:
        """Survey rows of a build, given in COLUMNS. samples: ids of the rows to keep.

        answers: BuildRecord.answers; the rows of a selection say themselves whether they are answers. Of
        several answers, message keys count the answers as turns; the instruction of a row is the message that
        is answered. scores: see surveyed_scores. Rows without messages, which a selection may have, count as
        rows alone.
        """
        if len(speaking := _with_messages(batch)) < len(batch):
            found = cls.of_batch(speaking, samples=samples, answers=answers, scores=scores)
            return replace(found, rows=len(batch))
        names = set(batch.schema.names)
        if not answers and (parts := _by_system_message(batch)) is not None:
            return cls.sum(cls.of_batch(part, samples=samples) for part in parts)
        ids = batch.column("row_id").to_pylist()
        if each := answers or _answers_in(batch):
            instructions, texts = _answered(batch)
        else:
            texts = dict(_texts(batch))
            instructions = texts.get(("user", 1), pa.array([], pa.string())).to_pylist()
        digests = [_digest(text) for text in instructions]
        return cls(
            rows=len(ids),
            tokens=_by_message(_lists(batch, "completion_tokens"), each),
            characters={key: _counts(pc.utf8_length(values)) for key, values in texts.items()},
            finish_reasons=_by_message(_lists(batch, "finish_reasons"), each),
            attempts=_counts(_flat(batch, "attempt")) if "attempt" in names else {},
            # Each input may have a prompt of its own.
            system_prompts=_counts(batch.column("system_prompt"))
            if "system_prompt" in names and "input_id" not in names and not answers
            else {},
            samplings=_counts(batch.column("sampling_key")) if "sampling_key" in names else {},
            first_words=Counter(first_words(text) for text in instructions),
            first_rows=dict(zip(reversed(digests), reversed(ids), strict=False)),
            repeats={digest: number for digest, number in Counter(digests).items() if number > 1},
            samples=tuple(rows_with(batch, samples)),
            # Those of a pass are its source's.
            instructions=() if answers or scores else sample_of(batch, instructions),
            **score_counts(batch, scores),
        )

    @classmethod
    def sum(cls, surveys: Iterable["Survey"]) -> Self:
        """The survey of all rows together. The surveys have no rows in common."""
        rows = 0
        counts: dict[str, dict[Any, Any]] = {name: {} for name in _COUNTS}
        first_rows, repeats, samples = dict[int, int](), dict[int, int](), list[Record]()
        instructions: tuple[SampledInstruction, ...] = ()
        for survey in surveys:
            rows += survey.rows
            for name, total in counts.items():
                _add(total, getattr(survey, name))
            for digest, row_id in survey.first_rows.items():
                known = first_rows.get(digest)
                times = survey.repeats.get(digest, 1) + (repeats.get(digest, 1) if known is not None else 0)
                if times > 1:
                    repeats[digest] = times
                first_rows[digest] = row_id if known is None else min(known, row_id)
            samples += survey.samples
            instructions = merged((*instructions, *survey.instructions))
        samples.sort(key=lambda row: int(str(row["row_id"])))
        return cls(
            rows=rows,
            first_rows=first_rows,
            repeats=repeats,
            samples=tuple(samples),
            instructions=instructions,
            **counts,
        )


# The fields of a survey that add up number by number.
_COUNTS = (
    "tokens",
    "characters",
    "finish_reasons",
    "attempts",
    "system_prompts",
    "samplings",
    "first_words",
    "labels",
    "probabilities",
    "rewards",
)


def _add(total: dict[Any, Any], counts: Mapping[Any, Any]) -> None:
    """Add counts, or counts by message, to a total."""
    for key, number in counts.items():
        if isinstance(number, Mapping):
            _add(total.setdefault(key, {}), number)
        else:
            total[key] = total.get(key, 0) + number


def rows_with(batch: pa.RecordBatch, ids: Collection[int]) -> list[Record]:
    """The rows of the batch that have these ids."""
    is_wanted = pc.is_in(batch.column("row_id"), value_set=pa.array(ids, pa.int64()))
    rows: list[Record] = batch.filter(is_wanted).to_pylist()
    return rows


def _with_messages(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that have a message; all where the columns hold no messages."""
    names = batch.schema.names
    if "conversation" in names:
        return batch.filter(pc.greater(pc.list_value_length(batch.column("conversation")), 0))
    return batch.filter(pc.is_valid(batch.column("instruction"))) if "instruction" in names else batch


def _by_system_message(batch: pa.RecordBatch) -> list[pa.RecordBatch] | None:
    """The rows that begin with a system message and those that do not; None where all rows are alike."""
    if "conversation" not in batch.schema.names or not len(batch):
        return None
    first = pc.struct_field(pc.list_element(batch.column("conversation"), 0), "role")
    begins = pc.equal(first, "system")
    number = pc.sum(begins).as_py()
    return None if number in (0, len(batch)) else [batch.filter(begins), batch.filter(pc.invert(begins))]


def _texts(batch: pa.RecordBatch) -> Iterable[tuple[MessageKey, pa.Array]]:
    """The texts of all messages but the system's, by role and turn, in row order."""
    if "conversation" not in batch.schema.names:
        if "instruction" in batch.schema.names:
            yield ("user", 1), batch.column("instruction")
        return
    conversations = batch.column("conversation")
    roles = pc.struct_field(conversations.flatten(), "role")
    # Either all rows of the batch begin with a system message, or none does.
    begin = 1 if len(roles) and roles[0].as_py() == "system" else 0
    for key, messages in _slices(pc.list_slice(conversations, begin)):
        yield key, pc.struct_field(messages, "content")


def _slices(lists: pa.Array, answers: int = 0) -> Iterable[tuple[MessageKey, pa.Array]]:
    """The elements of a list column, one entry a generated message, by the message's role and turn."""
    for position in count():
        values = pc.list_slice(lists, position, position + 1).flatten()
        if not len(values):
            return
        yield _key_of(position, answers), values


def _key_of(position: int, answers: int) -> MessageKey:
    """The role and turn of a generated message, by its place among the generated ones of its row."""
    if answers > 1:
        return "assistant", position + 1
    place = position + 1 if answers else position  # the user's first message is given
    return "assistant" if place % 2 else "user", place // 2 + 1


def _answers_in(batch: pa.RecordBatch) -> int:
    """How many answers a row of a selection has, 2 for several; 0 where its messages are all generated."""
    names = set(batch.schema.names)
    if "conversation" not in names or not len(batch):
        return 0
    if "responses" in names:
        return 2
    if "finish_reasons" not in names:
        return 0
    conversations = batch.column("conversation")
    first = pc.struct_field(pc.list_element(conversations, 0), "role")
    spoken = pc.subtract(pc.list_value_length(conversations), pc.cast(pc.equal(first, "system"), pa.int32()))
    return int(pc.any(pc.greater(spoken, pc.list_value_length(batch.column("finish_reasons")))).as_py())


def _answered(batch: pa.RecordBatch) -> tuple[list[str], dict[MessageKey, pa.Array]]:
    """Of rows of a pass, the messages that are answered, and the generated texts by role and turn.

    A row of a selection that was generated whole counts with its first message.
    """
    instructions, texts = list[str](), dict[MessageKey, list[str]]()
    for row in batch.to_pylist():
        said = said_in(row)
        generated = row.get("finish_reasons") or row.get("responses") or ()
        given = max(1, len(said) - len(generated))
        instructions.append(said[given - 1].text or "")
        for place, one in enumerate(said[given:]):
            if one.text is not None:
                texts.setdefault(_key_of(place, 2 if "responses" in row else 1), []).append(one.text)
    return instructions, {key: pa.array(values, pa.string()) for key, values in texts.items()}


def _lists(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column with an entry for each generated message; of a selection without it, one without entries."""
    if name in batch.schema.names:
        return batch.column(name)
    return pa.array([[]] * len(batch), pa.list_(pa.int32()))


def _flat(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(name)
    return column.flatten() if pa.types.is_list(column.type) else column


def _by_message(lists: pa.Array, answers: int) -> dict[MessageKey, dict[Any, int]]:
    counted = {key: _counts(pc.drop_null(values)) for key, values in _slices(lists, answers)}
    return {key: counts for key, counts in counted.items() if counts}


def _counts(values: pa.Array) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
