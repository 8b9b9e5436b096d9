"""What counts when texts are compared."""

import pytest

from magpie_ray.similarity.words import words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is gravity?", "WHAT IS  GRAVITY"),
        ("Don't stop", "dont stop!"),
        ("Send an e-mail", "send an email"),
        ("It costs 1,000 euros", "it costs 1000 euros."),
        ("A 3-year plan", "a 3 year plan"),
        ("**Explain** this", "Explain this"),
        ("Ｆｕｌｌ ｗｉｄｔｈ", "full width"),
    ],
)
def test_case_punctuation_and_spaces_do_not_count(one: str, other: str) -> None:
    first, second = words_of(one), words_of(other)
    assert (first.letters, first.facts) == (second.letters, second.facts)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 12 x 7?", "What is 12 x 8?"),
        ("What is 12 - 7?", "What is 12 + 7?"),
        ("What is 12 – 7?", "What is 12 7?"),
        ("What is 4 minus 6?", "What is 6 minus 4?"),
        ("Round 2.5 up", "Round 25 up"),
        ("What does `a[1:]` do?", "What does `a[:1]` do?"),
        ("Explain:\n```\nx += y\n```", "Explain:\n```\nx -= y\n```"),
        ("Why?\nprint(f(x));", "Why?\nprint(f[x]);"),
        ("Is 3 < 4?", "Is 3 > 4?"),
    ],
)
def test_numbers_and_code_are_facts(one: str, other: str) -> None:
    assert words_of(one).facts != words_of(other).facts


def test_numbers_are_all_alike_where_they_are_ignored() -> None:
    first, second = (words_of(f"What is 12 x {n}?", ignore_numbers=True) for n in (7, 8))
    assert first == second
    assert first.facts == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("狗咬人 hello", ("狗", "咬", "人", "hello")),
        ("हिंदी में लिखो", ("हिंदी", "में", "लिखो")),
        ("Draw a 🍎!", ("draw", "a", "🍎")),
        ("สวัสดี", ("ส", "วั", "ส", "ดี")),
        ("snake_case", ("snake", "case")),
        ("?!", ()),
        ("", ()),
    ],
)
def test_words_of_many_scripts_are_told_apart(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text).words == words


def test_text_that_is_no_valid_unicode_is_read() -> None:
    assert words_of("a \ud800 b").letters
