"""How instructions begin: their first two words, and the most frequent ones as a tree.

Pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

# Two characters count as a word in scripts without spaces (Thai to Khmer, kana, Han).
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]{{1,2}}|[^\W{_UNSPACED}](?:[^\W{_UNSPACED}]|['\u2019-](?=\w))*")
_WORD_CHARACTERS = 24
# The first two words of an instruction are looked for in so many characters.
_HEAD_CHARACTERS = 200


def first_words(text: str) -> tuple[str, str]:
    """The first two words, casefolded; "" for a missing word."""
    matches = _WORD.finditer(text[:_HEAD_CHARACTERS].casefold())
    words = [match[0][:_WORD_CHARACTERS] for match in islice(matches, 2)]
    first, second = [*words, "", ""][:2]
    return first, second


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """The rows whose instruction begins with `word`; `then`: the second words and their rows."""

    word: str
    rows: int
    then: Sequence[tuple[str, int]]


def word_tree(counts: Mapping[tuple[str, str], int], *, first: int, second: int) -> Sequence[Branch]:
    """The `first` most frequent first words, each with the `second` most frequent next ones. "": no word.

    counts: rows by their first two words.
    """
    by_word = dict[str, dict[str, int]]()
    for (word, after), rows in counts.items():
        by_word.setdefault(word, {})[after] = rows
    branches = [
        Branch(word=word, rows=sum(then.values()), then=_most_frequent(then)[:second])
        for word, then in by_word.items()
    ]
    return sorted(branches, key=lambda branch: (-branch.rows, branch.word))[:first]


def _most_frequent(words: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(words.items(), key=lambda item: (-item[1], item[0]))
