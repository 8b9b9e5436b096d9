"""How instructions begin, in any language."""

import pytest

from magpie_ray.publish.first_words import first_words, word_tree


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What is the capital of France?", ("what", "is")),
        ("  **Write** a poem", ("write", "a")),
        ("I'm lost", ("i'm", "lost")),
        ("up-to-date news", ("up-to-date", "news")),
        ("", ("", "")),
        ("???", ("", "")),
        ("Hello", ("hello", "")),
        ("ÉCRIS un poème", ("écris", "un")),
        ("请写一首关于春天的诗", ("请写", "一首")),
        ("Python的列表", ("python", "的列")),
        ("اكتب قصيدة", ("اكتب", "قصيدة")),
        ("Напиши стихотворение", ("напиши", "стихотворение")),
        ("หนังสือ", ("หน", "ัง")),
        ("a" * 1000, ("a" * 24, "")),
    ],
)
def test_the_first_words_of_any_language(text: str, words: tuple[str, str]) -> None:
    assert first_words(text) == words


def test_the_word_tree_is_ordered_and_cut() -> None:
    words = {("what", "is"): 5, ("what", "are"): 7, ("how", ""): 3, ("write", "a"): 20, ("", ""): 1}
    tree = word_tree(words, first=3, second=1)
    assert [(branch.word, branch.rows, branch.then) for branch in tree] == [
        ("write", 20, [("a", 20)]),
        ("what", 12, [("are", 7)]),
        ("how", 3, [("", 3)]),
    ]
