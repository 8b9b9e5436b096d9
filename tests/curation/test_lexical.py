"""The search for near-duplicates by words."""

import random
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.benchmarks import dedupe as benchmark
from jobs.benchmarks.planted_texts import planted_texts
from magpie_ray.curation.lexical import find_neighbours
from magpie_ray.curation.neighbours import NOWHERE, Neighbours
from magpie_ray.similarity.words import words_of


def found(*texts: str, against: tuple[str, ...] = (), threshold: float = 0.05) -> Neighbours:
    read = [(0, row, words_of(text)) for row, text in enumerate(texts)]
    read += [(1 + number, 100 + number, words_of(text)) for number, text in enumerate(against)]
    return find_neighbours(read, threshold=threshold)


def test_the_smallest_row_of_a_cluster_is_kept() -> None:
    near = found("Who are you?", "Write a poem about the sea", "who are you", "WHO ARE YOU", "Why is it so?")
    assert near.repeats.tolist() == [0, 0, 1, 2, 0]
    assert near.similar.tolist() == [2, NOWHERE, 0, 0, NOWHERE]
    assert near.distances.tolist() == [0, 1, 0, 0, 1]


def test_chains_make_one_cluster() -> None:
    long = "one two three four five six seven eight nine ten eleven"
    texts = [long, f"{long} twelve", f"{long} twelve thirteen", f"{long} twelve thirteen fourteen"]
    assert found(*texts).repeats.tolist() == [0, 1, 2, 3]
    assert found(texts[0], texts[3]).repeats.tolist() == [0, 0]  # its ends alone are too far apart


def test_equal_letters_are_equal_texts_whatever_their_spaces() -> None:
    near = found("email me all of it", "e-mail me all of it", "e mail me all of it")
    assert near.similar.tolist() == [1, 0, 0]
    assert near.repeats.tolist() == [0, 1, 2]


def test_other_sets_have_distances_and_no_clusters() -> None:
    near = found(
        "What is the capital of France?",
        "Write a poem",
        against=("Write a poem!", "what is the capital city of france", "write a POEM"),
    )
    assert near.against.tolist() == [101, 100]
    assert near.against_sets.tolist() == [2, 1]
    assert near.against_distances.tolist() == pytest.approx([0.25 / 7, 0])
    assert near.repeats.tolist() == [0, 0]
    assert near.distances.tolist() == [1, 1]


def test_no_texts_have_no_neighbours() -> None:
    assert len(found().row_ids) == 0
    assert found("", "...").repeats.tolist() == [0, 1]


def test_near_copies_are_found_and_look_alikes_are_not() -> None:
    accuracy = benchmark.accuracy(planted_texts(10_000, copies=500, look_alikes=500, seed=1))
    assert accuracy["recall"] >= 0.98
    assert accuracy["precision"] >= 0.98


def test_brute_force_finds_the_same() -> None:
    assert benchmark.agreement(planted_texts(3_000, copies=300, look_alikes=150, seed=2)) >= 0.995


def test_many_fillings_of_one_template_stay_apart_and_their_copies_are_found() -> None:
    rng = random.Random(0)
    fillings = {"".join(rng.choices("bcdfghklmnprstaeiou", k=9)) for _ in range(4_000)}
    texts = [f"Write me a long and sad story about a small {word} in the woods" for word in sorted(fillings)]
    near = found(*texts, *(text.replace("me a long", "me please a long") for text in texts[:500]))
    assert near.repeats[: len(texts)].sum() < 10  # fillings that look like typos of others
    assert (near.repeats[len(texts) :] > 0).mean() >= 0.98


SOURCE = planted_texts(400, copies=80, look_alikes=40, seed=3).texts
SAME = tuple(np.asarray(column).tobytes() for column in astuple(found(*SOURCE, against=SOURCE[:5])))


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_rows_are_read_does_not_matter(rng: random.Random) -> None:
    rows = [(0, row, words_of(text)) for row, text in enumerate(SOURCE)]
    rows += [(1 + number, 100 + number, words_of(text)) for number, text in enumerate(SOURCE[:5])]
    rng.shuffle(rows)
    near = find_neighbours(rows, threshold=0.05)
    assert tuple(np.asarray(column).tobytes() for column in astuple(near)) == SAME
