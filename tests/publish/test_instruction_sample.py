"""A sample of instructions is bounded and even, and shows where the instructions of a group collapse."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from random import Random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.publish.instruction_sample import (
    LEAST,
    MOST,
    SAMPLE,
    GroupDiversity,
    diversity_by_group,
    merged,
    sample_of,
)

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "lmnrst"]


def batch_of(start: int, stop: int, **columns: list[object]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"row_id": pa.array(range(start, stop), pa.int64()), **columns})


def ordinary(random: Random) -> str:
    return " ".join(random.choices(WORDS, k=10))


def by_key(groups: object) -> Mapping[object, GroupDiversity]:
    return {group.key: group for group in groups}  # type: ignore[attr-defined]


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(1, SAMPLE + 4999), max_size=4), st.randoms(use_true_random=False))
def test_samples_of_parts_add_up_and_have_every_row_alike_likely(cuts: set[int], random: Random) -> None:
    rows = SAMPLE + 5000
    texts = [str(n) for n in range(rows)]
    whole = sample_of(batch_of(0, rows), texts)
    edges = sorted({0, rows, *cuts})
    parts = [sample_of(batch_of(a, b), texts[a:b]) for a, b in pairwise(edges)]
    random.shuffle(parts)
    assert merged(row for part in parts for row in part) == whole
    assert len(whole) == SAMPLE
    first = Counter(row.row_id * 5 // rows for row in whole[:MOST])
    assert all(150 < first[fifth] < 250 for fifth in range(5))


def test_a_data_set_without_instructions_has_no_sample() -> None:
    assert sample_of(batch_of(0, 3), []) == ()
    assert diversity_by_group((), {}, {}) == []


@pytest.mark.parametrize("collapsed", [0, 1, 2])
def test_the_setting_whose_instructions_collapse_is_the_one_that_shows(collapsed: int) -> None:
    random = Random(collapsed)
    keys = [random.randrange(3) for _ in range(3000)]
    few = [ordinary(random) for _ in range(100)]
    texts = [random.choice(few) if key == collapsed else ordinary(random) for key in keys]
    sample = sample_of(batch_of(0, 3000, sampling_key=keys), texts)
    groups = by_key(diversity_by_group(sample, Counter(keys), {None: 3000}))
    assert set(groups) == {None, 0, 1, 2}
    for key in range(3):
        found = groups[key].diversity
        assert found.texts == groups[None].diversity.texts
        if key == collapsed:
            assert found.near_duplicates > 0.99
            assert found.mean_distance < 0.01
        else:
            assert found.near_duplicates == 0
            assert found.mean_distance > 0.6


def test_groups_of_prompts_are_measured_beside_settings_and_inputs_have_none() -> None:
    random = Random(0)
    prompts = [random.choice(["a", "b", None]) for _ in range(900)]
    texts = ["Why?" if prompt == "b" else ordinary(random) for prompt in prompts]
    columns = {"system_prompt": prompts, "sampling_key": [0] * 900}
    groups = by_key(
        diversity_by_group(sample_of(batch_of(0, 900, **columns), texts), {0: 900}, Counter(prompts))
    )
    assert {(group.kind, key) for key, group in groups.items()} >= {("prompt", "a"), ("prompt", "b")}
    assert groups["b"].diversity.near_duplicates == 1
    assert groups["a"].diversity.near_duplicates == 0
    of_inputs = sample_of(batch_of(0, 900, **columns, input_id=[0] * 900), texts)
    assert {row.prompt for row in of_inputs} == {None}


def test_all_groups_are_compared_by_as_many_rows_and_small_ones_are_left_out() -> None:
    random = Random(0)
    keys = [0] * 700 + [1] * (LEAST + 20) + [2] * (LEAST - 1)
    texts = [ordinary(random) for _ in keys]
    sample = sample_of(batch_of(0, len(keys), sampling_key=keys), texts)
    groups = by_key(diversity_by_group(sample, Counter(keys), {}))
    assert set(groups) == {None, 0, 1}
    assert {group.diversity.texts for group in groups.values()} == {LEAST + 20}


def test_a_long_instruction_counts_with_its_beginning() -> None:
    [row] = sample_of(batch_of(0, 1), ["x" * 10_000_000])
    assert len(row.text) < 1000
