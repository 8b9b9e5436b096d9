"""A sample of instructions with what they were generated under, and how diverse those of each group are.

Invariants: which rows are in the sample depends on their row ids alone, so samples of the parts of a set of
rows add up to that of the whole; sample and work are bounded. Groups are compared by as many instructions
each, because a nearest distance falls as their number grows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from heapq import nsmallest
from typing import Any, Literal, NamedTuple, TypeVar

import pyarrow as pa

from magpie_ray.similarity.diversity import Diversity, diversity_of

Kind = Literal["all", "sampling", "prompt"]
Key = TypeVar("Key", bound=int | str | None)

# Of so many rows, and so many characters of each.
SAMPLE, _CHARACTERS = 20_000, 600
# The instructions of a group that are compared, at most and at least; smaller groups are left out.
MOST, LEAST = 1000, 100
# The groups of each kind with the most rows. All together take a core 2 s, of long instructions 12 s.
_GROUPS = 12


class SampledInstruction(NamedTuple):
    """An instruction and its row's settings. place: the sample's first rows are a sample, too."""

    place: int
    row_id: int
    text: str
    sampling: int | None
    prompt: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDiversity:
    """How diverse the instructions of one group are. key: of its sampling settings, or its system prompt.

    kind: "all" for the instructions of all groups; its key is None.
    """

    kind: Kind
    key: int | str | None
    diversity: Diversity


def sample_of(batch: pa.RecordBatch, instructions: Sequence[str]) -> tuple[SampledInstruction, ...]:
    """The sample of these rows. instructions: one for each row, or none where the data set has none."""
    if not instructions:
        return ()
    names = set(batch.schema.names)

    def column(name: str, is_there: bool) -> Sequence[Any]:
        return batch.column(name).to_pylist() if is_there else [None] * len(batch)

    rows = zip(
        batch.column("row_id").to_pylist(),
        instructions,
        column("sampling_key", "sampling_key" in names),
        # Each input may have a prompt of its own.
        column("system_prompt", "system_prompt" in names and "input_id" not in names),
        strict=True,
    )
    return merged(
        SampledInstruction(_place(row_id), row_id, text[:_CHARACTERS], sampling, prompt)
        for row_id, text, sampling, prompt in rows
    )


def merged(rows: Iterable[SampledInstruction]) -> tuple[SampledInstruction, ...]:
    """The sample of samples that have no rows in common."""
    return tuple(nsmallest(SAMPLE, rows))


def diversity_by_group(
    sample: Sequence[SampledInstruction], samplings: Mapping[int, int], prompts: Mapping[str | None, int]
) -> Sequence[GroupDiversity]:
    """All instructions, those of each sampling setting, those of each system prompt.

    samplings, prompts: the rows of each group. Where there is one group, it is all. Groups of which the
    sample has few rows are left out; nothing is measured where the whole sample has few.
    """
    groups: list[tuple[Kind, int | str | None, list[str]]] = [("all", None, [row.text for row in sample])]
    for number in _largest(samplings):
        groups.append(("sampling", number, [row.text for row in sample if row.sampling == number]))
    for prompt in _largest(prompts):
        groups.append(("prompt", prompt, [row.text for row in sample if row.prompt == prompt]))
    groups = [group for group in groups if len(group[2]) >= LEAST]
    size = min([MOST, *(len(texts) for _, _, texts in groups)])
    return [
        GroupDiversity(kind=kind, key=key, diversity=diversity_of(texts[:size]))
        for kind, key, texts in groups
    ]


def _largest(rows: Mapping[Key, int]) -> Iterator[Key]:
    """The largest of several groups, in order of their keys, None first."""
    if len(rows) > 1:
        largest = sorted(rows, key=lambda key: (-rows[key], str(key)))[:_GROUPS]
        yield from sorted(largest, key=lambda key: (key is not None, key))


def _place(row_id: int) -> int:
    return int.from_bytes(blake2b(row_id.to_bytes(8, "little"), digest_size=8).digest(), "little")
