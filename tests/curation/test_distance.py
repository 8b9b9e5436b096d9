"""The distance of two texts: its formula, and the arrays that follow it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.curation.corpus import read_corpus
from magpie_ray.curation.distance import counts_of, distance, distances, is_typo
from magpie_ray.similarity.words import words_of

USUAL = "what is the capital of france spain write a short poem about sea in spring city"
OFTEN = Counter(USUAL.split() * 500)


def between(one: str, other: str) -> float:
    return distance(words_of(one), words_of(other), OFTEN)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("What is the capital of France?", "what is the CAPITAL of france", 0),
        ("What is the capital of France?", "What the is capital of France?", 0),
        ("What is the capital of France?", "What is the capital city of France?", 0.25 / 7),
        ("What is the capital of France?", "What is the captial of France?", 0.25 / 6),
        ("What is the capital of France?", "What is the capital of Spain?", 2 / 7),
        ("Write a poem", "Write a short poem about spring", 2.25 / 6),
        ("Is 3 > 4?", "Is 4 > 3?", 1),
        ("apples", "pears", 1),
        ("", "?", 0),
    ],
)
def test_distances_follow_the_formula(one: str, other: str, expected: float) -> None:
    assert between(one, other) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("word", "other", "expected"),
    [
        ("capital", "captial", True),
        ("capital", "capitl", True),
        ("capital", "capitaal", True),
        ("the", "teh", True),
        ("spring", "string", True),
        ("cat", "bat", False),
        ("capital", "cpaitla", False),
    ],
)
def test_a_typo_is_one_letter_or_two_that_are_swapped(word: str, other: str, expected: bool) -> None:
    assert is_typo(word, other, OFTEN) is expected
    assert is_typo(other, word, OFTEN) is expected


def test_two_words_that_are_both_usual_are_no_typos() -> None:
    counts = {"iran": 500, "iraq": 400, "capital": 90_000, "captial": 30}
    assert not is_typo("iran", "iraq", counts)
    assert is_typo("capital", "captial", counts)


SOME = "sea see seas poem peom poems house horse 3 4 e mail email a b spring strpng"
WORDS = st.sampled_from(SOME.split())
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


@given(st.lists(TEXTS, min_size=2, max_size=6))
def test_arrays_have_the_distances_of_pairs(texts: list[str]) -> None:
    words = [words_of(text) for text in texts]
    corpus = read_corpus((0, row, each) for row, each in enumerate(words))
    counts = Counter(word for each in words for word in each.words)
    left, right = np.triu_indices(len(texts), 1)
    found = distances(corpus, left, right, counts_of(corpus), most=1.0)
    expected = [distance(words[i], words[j], counts) for i, j in zip(left, right, strict=True)]
    assert found.tolist() == np.float32(expected).tolist()


@given(TEXTS, TEXTS)
def test_distances_are_symmetric_and_between_0_and_1(one: str, other: str) -> None:
    counts = Counter[str]()
    first, second = words_of(one), words_of(other)
    assert distance(first, second, counts) == distance(second, first, counts)
    assert 0 <= distance(first, second, counts) <= 1
    assert distance(first, first, counts) == 0
