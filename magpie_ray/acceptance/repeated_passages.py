"""How much of a text stood word for word earlier in it: sentences said again, lists of one item.

Evenly spread pieces of the text are searched for in what precedes them. The share that is found estimates how
much was said before. Invariant: most texts take a few searches.
"""

import re
from collections.abc import Sequence

# First a few pieces, then more. A repeated passage can't escape them if it is longer than their distance.
_FEW, _MORE, _MANY = 6, 12, 32
# Characters of a short text, of a piece in it, and of a piece of other texts.
_SHORT_TEXT, _SMALL_PIECE, _PIECE = 400, 24, 32
# A piece with fewer different characters is a line to write on, or a word that is drawn out.
_PIECE_KINDS = 7
# Addresses and paths; what somebody says in a story.
_NO_PROSE = re.compile(r"[!-~]{30,}|[\"“„«「][^\"“”„«»「」\n]{30,200}[\"”“»」]")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
# Long lines with few of these marks are prose. Verse, lists and code repeat lines for good reasons, and users
# give texts to compare: there, more must have been said before.
_LONG_LINE = 80
_MARKS, _FEW_MARKS = '{}[]=<>|\\_^";', 0.08
_MOST = 0.6
# Behind a label or in quotes: "Original: ...", "**Corrected:** ...".
_GIVEN = re.compile(r"\W{0,4}(?:[\w'-]++ ?+){1,4}+\W{0,2}[:：]|\W{0,3}[\"“„«「『>]")
# A text with some Chinese, Japanese or Korean at its beginning, where one character stands for three.
_DENSE, _SOME_DENSE, _DENSITY = re.compile(r"[぀-ヿ一-鿿가-힣]"), 20, 3


def density(text: str) -> int:
    """Characters of an alphabet for which one character of the text stands."""
    is_dense = not text.isascii() and len(_DENSE.findall(text[:200])) > _SOME_DENSE
    return _DENSITY if is_dense else 1


def says_much_again(text: str, most: float, dense: int, *, is_answer: bool, look_closely: bool) -> bool:
    """Whether more than that share of an answer's prose was said before.

    Of all text in words, 60% may have been. dense: its density. look_closely: also look where a
    few pieces find nothing.
    """
    size = (_SMALL_PIECE if len(text) * dense < _SHORT_TEXT else _PIECE) // dense
    if not look_closely and not _said_before(text, _FEW, size):
        return False
    said, length = _said_before(text, _MORE, size), len(text)
    if said < most / 2:
        return False
    if "```" in text:
        text = _FENCED.sub("\n", text)
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    if is_answer and _prose_said_before(lines, size, _LONG_LINE // dense) > most * length:
        return True
    most = max(most, _MOST)
    if said < most / 2:
        return False
    words = "\n".join(filter(_is_of_words, lines))
    return len(words) > length / 2 and _said_before(words, _MANY, size) > most


def _is_of_words(line: str) -> bool:
    return line[0] != "|" and sum(map(line.count, _MARKS)) < _FEW_MARKS * len(line)


def _prose_said_before(lines: Sequence[str], size: int, least: int) -> float:
    """Characters of prose, in lines of `least` and more, that were said before.

    Those that were said twice before count double. What is given as an example may stand there twice, as an
    original and its correction do.
    """
    prose, own, before = list[str](), list[str](), ""
    for line in lines:
        if len(line) >= least and _is_of_words(line):
            prose.append(line)
            if not before.endswith((":", "：")) and not _GIVEN.match(line):
                own.append(line)
        before = line
    once, twice = (_NO_PROSE.sub(" ", "\n".join(lines)) for lines in (own, prose))
    said_once = len(once) * _said_before(once, _MANY, size)
    return max(said_once, 2 * len(twice) * _said_before(twice, _MANY, size, times=2))


def _said_before(text: str, pieces: int, size: int, times: int = 1) -> float:
    """The share of so many pieces of the text, of `size` characters, that occur so many times before."""
    span = len(text) - 2 * size
    said = 0
    for index in range(1, 2 * pieces if span > 0 else 0, 2):
        start = size + span * index // (2 * pieces)
        piece = text[start : start + size]
        found = text.find(piece)
        for _ in range(times - 1):
            if found < start:
                found = text.find(piece, found + 1)
        if found < start and len(set(piece)) >= _PIECE_KINDS:
            said += 1
    return said / pieces
