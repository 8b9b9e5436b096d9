"""The diversity of a sample, against the distance that `dedupe` computes pair by pair."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magpie_ray.curation.distance import distance
from magpie_ray.similarity.diversity import NEAR, diversity_of
from magpie_ray.similarity.words import words_of

# No two of them are one letter apart, so none is a typo of another.
WORDS = st.sampled_from(["tea", "chess", "rivers", "Rivers,", "gravity", "日", "本", "7", "12"])
TEXTS = st.lists(st.lists(WORDS, max_size=6).map(" ".join), min_size=2, max_size=12)


@settings(deadline=None)
@given(TEXTS)
def test_the_figures_are_those_of_all_pairs_compared_one_by_one(texts: list[str]) -> None:
    found = diversity_of(texts)
    read = [words_of(text) for text in texts]
    by_words = [words_of(" ".join(word for word in each.words if not word.isdigit())) for each in read]
    nearest, near = list[float](), 0
    for place, one in enumerate(read):
        others = [other for number, other in enumerate(read) if number != place]
        near += any(distance(one, other, {}) <= NEAR for other in others)
        if by_words == read:
            nearest.append(min(distance(one, other, {}) for other in others))
    assert found.texts == len(texts)
    assert found.near_duplicates == pytest.approx(near / len(texts))
    if by_words == read:  # without numbers, which may not differ between near-duplicates
        assert found.mean_distance == pytest.approx(sum(nearest) / len(texts))


@given(TEXTS, st.randoms(use_true_random=False))
def test_order_and_case_do_not_count(texts: list[str], random: object) -> None:
    shuffled = [text.upper() for text in texts]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = diversity_of(texts), diversity_of(shuffled)
    assert one.near_duplicates == other.near_duplicates
    assert one.mean_distance == pytest.approx(other.mean_distance)


def test_a_template_with_other_numbers_is_no_near_duplicate_but_not_diverse() -> None:
    found = diversity_of(
        [f"What is the sum of {n} and {n + 1} in the decimal system?" for n in range(0, 90, 3)]
    )
    assert found.near_duplicates == 0
    assert found.mean_distance < 0.35


def test_any_number_of_different_words_is_told_apart() -> None:
    found = diversity_of([*(f"a{n} b{n}" for n in range(600)), " ".join(f"c{n}" for n in range(60_000))])
    assert found.mean_distance == 1
