"""What was said before: found wherever it stands, and not where nothing was."""

import random

from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.acceptance.repeated_passages import density, says_much_again

_WORDS = [
    *(
        "river",
        "stone",
        "quiet",
        "window",
        "market",
        "silver",
        "garden",
        "winter",
        "letter",
        "bridge",
        "copper",
    ),
    *(
        "thunder",
        "basket",
        "candle",
        "meadow",
        "harbour",
        "lantern",
        "orchard",
        "velvet",
        "compass",
        "feather",
    ),
]


def sentences(number: int, seed: int, words: int = 14) -> list[str]:
    """Sentences of some 100 characters, each of words of its own."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(_WORDS, k=words)).capitalize() + "." for _ in range(number)]


def found(text: str, *, is_answer: bool = True) -> bool:
    return says_much_again(text, 0.2, density(text), is_answer=is_answer, look_closely=True)


@given(st.integers(2, 40), st.integers())
def test_text_without_repeated_sentences_is_never_found(number: int, seed: int) -> None:
    assert not found(" ".join(sentences(number, seed)))


@given(st.integers(2, 12), st.integers(0, 12), st.integers(0, 12), st.integers())
def test_a_passage_that_is_said_again_is_found_wherever_it_stands(
    said: int, before: int, behind: int, seed: int
) -> None:
    """Where it is a third of the text or more."""
    passage, rest = sentences(said, seed), sentences(min(before + behind, said), seed + 1)
    text = [*rest[:before], *passage, *passage, *rest[before:]]
    assert found(" ".join(text))


def test_an_original_and_its_correction_may_be_alike_but_not_three_of_them() -> None:
    passage = " ".join(sentences(3, seed=1))
    assert not found(f"Original: {passage}\n\nCorrected: {passage}")
    assert found(f"Original: {passage}\n\nCorrected: {passage}\n\nCorrected: {passage}\n\nFinal: {passage}")


def test_lines_of_a_refrain_may_come_again_and_a_list_of_one_item_may_not() -> None:
    verses = [sentences(4, seed, words=5) for seed in range(3)]
    chorus = sentences(4, seed=9, words=5)
    song = [line for verse in verses for line in (*verse, "", *chorus, "")]
    assert not found("\n".join(song))
    assert found("\n".join(["Here are some items:", *(f"- {chorus[0]}" for _ in range(12)), "That is all."]))


def test_users_may_give_a_text_twice() -> None:
    passage = " ".join(sentences(4, seed=2))
    assert not found(f"Which version is better?\n{passage}\n{passage}", is_answer=False)


def test_a_chinese_character_stands_for_three_of_an_alphabet() -> None:
    assert density("我认为学习外语最好的方法是每天练习，每天花三十分钟听外语广播。") == 3
    assert density("Ich übe täglich; 你好 heißt hallo.") == 1
