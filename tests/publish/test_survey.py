"""Surveys add up, and say of rows what counting them one by one says."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.dataset.columns import to_table
from magpie_ray.publish.first_words import first_words
from magpie_ray.publish.survey import COLUMNS, Survey
from magpie_ray.types import Input, Message, Row, SystemPrompt
from tests.support.builds import config_of, row_of

PROMPTS = (None, SystemPrompt(key="a", text="Be kind.", weight=0.5))
TEXTS = st.sampled_from(["Why?", "Because.", "why not", "", "日本語はどこで話されますか", "What is 1+1?"])

MESSAGE = {"role": pa.string(), "content": pa.string()}
SAID = [{"role": "user", "content": "What?"}]


@st.composite
def rows_of(draw: st.DrawFn, *, include_system_prompt: bool = False) -> list[Row]:
    prompt = PROMPTS[1] if include_system_prompt else draw(st.sampled_from(PROMPTS))
    size = draw(st.integers(1, 4))
    messages = st.lists(TEXTS, min_size=1, max_size=size)
    return [
        row_of(row_id, texts, prompt) for row_id, texts in enumerate(draw(st.lists(messages, max_size=12)))
    ]


def batch_of(rows: list[Row], *, include_system_prompt: bool = False) -> pa.RecordBatch:
    """The rows as a file's columns."""
    table = to_table(rows, config_of(n_turns=4, include_system_prompt=include_system_prompt))
    table = table.select([name for name in COLUMNS if name in table.column_names])
    return pa.RecordBatch.from_arrays([c.combine_chunks() for c in table.columns], schema=table.schema)


@settings(deadline=None)
@given(st.data(), st.booleans())
def test_surveying_the_parts_and_adding_up_is_surveying_the_whole(
    data: st.DataObject, include_system_prompt: bool
) -> None:
    rows = data.draw(rows_of(include_system_prompt=include_system_prompt))
    samples = data.draw(st.frozensets(st.integers(0, 12)))
    batch = batch_of(rows, include_system_prompt=include_system_prompt)
    whole = Survey.of_batch(batch, samples=samples)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(rows)), max_size=4)) | {0, len(rows)})
    parts = [Survey.of_batch(batch.slice(a, b - a), samples=samples) for a, b in pairwise(cuts)]
    parts = data.draw(st.permutations(parts))
    assert Survey.sum(parts) == whole == Survey.sum([whole])
    middle = len(parts) // 2
    assert Survey.sum([Survey.sum(parts[:middle]), Survey.sum(parts[middle:])]) == whole


@settings(deadline=None)
@given(rows_of())
def test_a_survey_says_what_counting_says(rows: list[Row]) -> None:
    found = Survey.of_batch(batch_of(rows), samples={1, 3})
    assert found.rows == len(rows)
    characters: dict[tuple[str, int], Counter[int]] = {}
    tokens: dict[tuple[str, int], Counter[int]] = {}
    for row in rows:
        for position, message in enumerate(row.messages):
            key = (message.role, position // 2 + 1)
            characters.setdefault(key, Counter())[len(message.text)] += 1
            tokens.setdefault(key, Counter())[message.completion_tokens] += 1
    assert found.characters == characters
    assert found.tokens == tokens
    assert {key: sum(counts.values()) for key, counts in found.finish_reasons.items()} == {
        key: sum(counts.values()) for key, counts in tokens.items()
    }
    instructions = Counter(row.messages[0].text for row in rows)
    assert found.duplicates == len(rows) - len(instructions)
    assert sorted(found.repeats.values()) == sorted(n for n in instructions.values() if n > 1)
    assert found.first_words == Counter(first_words(row.messages[0].text) for row in rows)
    assert [row["row_id"] for row in found.samples] == [row.row_id for row in rows if row.row_id in (1, 3)]


def test_prompts_and_samplings_are_counted() -> None:
    batch = batch_of([row_of(i, ("Why?", "So."), PROMPTS[1] if i % 3 else None) for i in range(9)])
    with_mix = batch.append_column("sampling_key", pa.array([i % 2 for i in range(9)], pa.int32()))
    found = Survey.of_batch(with_mix)
    assert found.system_prompts == {"Be kind.": 6, None: 3}
    assert found.samplings == {0: 5, 1: 4}
    assert found.attempts == {1: 9}
    assert found.finish_reasons == {("user", 1): {"stop": 9}, ("assistant", 1): {"stop": 9}}


def test_a_build_of_instructions_has_no_conversation() -> None:
    batch = batch_of([row_of(i, ("Why?",)) for i in range(3)])
    texts = pa.array(["Why?", "Why?", "How so?"])
    only = batch.drop_columns(["conversation"]).append_column("instruction", texts)
    found = Survey.of_batch(only)
    assert found.characters == {("user", 1): {4: 2, 7: 1}}
    assert found.duplicates == 1
    assert set(only.schema.names) <= set(COLUMNS)


def test_a_row_that_took_two_attempts_is_counted_as_such() -> None:
    message = Message(role="user", text="Hi", finish_reason="length", prompt_tokens=1, completion_tokens=7)
    row = Row(row_id=0, messages=(message,), system_prompt=None, attempt=2)
    found = Survey.of_batch(batch_of([row]))
    assert found.attempts == {2: 1}
    assert found.finish_reasons == {("user", 1): {"length": 1}}


def test_rows_of_which_some_begin_with_a_system_message_are_surveyed_by_their_messages() -> None:
    """Where the prompts are those of inputs, of which some have none."""
    texts = ["Why?", "Because."]
    rows = [row_of(n, texts, PROMPTS[n % 2]) for n in range(6)]
    mixed = Survey.of_batch(batch_of(rows, include_system_prompt=True), samples={2, 3})
    plain = Survey.of_batch(batch_of(rows), samples={2, 3})
    assert (mixed.tokens, mixed.characters, mixed.first_words) == (
        plain.tokens,
        plain.characters,
        plain.first_words,
    )
    assert (mixed.rows, mixed.duplicates) == (6, 5)
    assert [sample["row_id"] for sample in mixed.samples] == [2, 3]


def test_the_prompts_of_inputs_are_not_counted_one_by_one() -> None:
    rows = [
        replace(row_of(n, ["Why?"], SystemPrompt(text=f"You are {n}.")), input=Input(input_id=n))
        for n in range(5)
    ]
    config = config_of(inputs={"path": "prompts.csv"}, n_turns=2)
    [batch] = to_table(rows, config).to_batches()
    found = Survey.of_batch(batch, samples={3})
    assert (found.rows, found.system_prompts) == (5, {})
    assert found.samples[0]["input_id"] == 3


def test_a_selection_is_surveyed_in_the_columns_that_it_has() -> None:
    texts = Survey.of_batch(pa.record_batch({"row_id": [0, 1], "instruction": ["Why?", "Why?"]}))
    assert (texts.rows, texts.duplicates, texts.tokens, texts.attempts) == (2, 1, {}, {})
    assert Survey.of_batch(pa.record_batch({"row_id": [0], "attempt": [2]})).attempts == {2: 1}


@pytest.mark.parametrize(
    ("columns", "repeated"),
    [
        ({"instruction": ["What?", None, "What?", None]}, 1),
        ({"conversation": [SAID, None, SAID, []]}, 1),
        ({"conversation": [None, [], None, []]}, 0),
    ],
)
def test_rows_without_messages_are_rows_and_nothing_else(
    columns: dict[str, list[Any]], repeated: int
) -> None:
    types = {"instruction": pa.string(), "conversation": pa.list_(pa.struct(MESSAGE))}
    arrays = {name: pa.array(values, types[name]) for name, values in columns.items()}
    found = Survey.of_batch(
        pa.record_batch({"row_id": pa.array(range(4), pa.int64()), **arrays}), samples=[0, 1]
    )
    assert (found.rows, found.duplicates) == (4, repeated)
    assert sum(found.first_words.values()) == 2 * repeated
    assert Survey.sum([found, found]).rows == 8
