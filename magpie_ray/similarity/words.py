"""What of a text counts when texts are compared: its words, and the numbers and code that must not differ.

Invariants: pure. Case, punctuation and spaces do not count. Scripts without spaces between words are read
character by character.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

# Combining marks belong to their letter in many scripts, and Python's \w leaves them out.
_MARKS = "".join(chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c)).startswith("M"))
# Thai, Lao, Myanmar, Khmer, Kana, Han: no spaces between words.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
)
_PICTURES = "\u2190-\u2bff\U0001f000-\U0001faff"
_WORD = re.compile(rf"[{_UNSPACED}][{_MARKS}]*|[{_PICTURES}]|(?:(?![{_UNSPACED}])[^\W_]|[{_MARKS}])+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_APOSTROPHES = re.compile("['’`´ʼ]")
_THOUSANDS = re.compile(r"(?<=\d)[,'’](?=\d{3}(?!\d))")
_DASHES = str.maketrans("−–—", "---")

_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_CODE_LINE = re.compile(
    r"^[ \t]*(?:(?:def|class|import|return|public|private|static|function|const|let|var)\b.*[({;:=<].*"
    r"|.*[;{}]|.*\w\(.*\)[ \t]*:?|.*[^\s=<>!]\s*[=!<>+*/-]?=\s*[^\s=].*)[ \t]*$",
    re.MULTILINE,
)
# A number, or an operator before an operand. A hyphen is one before a digit only; a bullet is none.
_FACT = re.compile(r"\d+(?:\.\d+)*|(?<=[\w)\] ])[+*/^=<>×÷≤≥≠%|&]+(?=\s*[\w(\[-])|-(?=\s*\d)")
_HAS_OPERATOR = re.compile(r"[+*/^=<>×÷≤≥≠%|&]|[-−–—]\s*\d")
_EMPHASIS = re.compile(r"(?<!\d)\*\*|\*\*(?!\d)")
_MAY_HOLD_FACTS = re.compile(r"[\d+*/^=<>×÷≤≥≠%|&`;{}(]")
_DIGITS = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """A text as it is compared. words: in order, case folded.

    facts: a hash of its numbers, operators and code, in order; 0 for none. letters: a hash of all words
    written together, so that "e-mail", "e mail" and "email" are the same.
    """

    words: tuple[str, ...]
    facts: int
    letters: int


def words_of(text: str, *, ignore_numbers: bool = False) -> Words:
    """The words of a text. ignore_numbers: all numbers are equal, and code is text like any other."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    facts = 0
    if _MAY_HOLD_FACTS.search(text):
        text = _THOUSANDS.sub("", text)
        if ignore_numbers:
            text = _DIGITS.sub("0", text)
        elif found := "\0".join(_facts(text)):
            facts = _hash(found)
    folded = _APOSTROPHES.sub("", text.casefold())
    words = tuple((_ASCII_WORD if folded.isascii() else _WORD).findall(folded))
    return Words(words=words, facts=facts, letters=_hash("".join(words)))


def _facts(text: str) -> Iterator[str]:
    """Code as it stands, but for spaces; then numbers and operators of the rest."""
    if "`" in text:
        yield from ("".join(block.split()) for block in _CODE.findall(text))
        text = _CODE.sub(" ", text)
    if "\n" in text:
        yield from ("".join(line.split()) for line in _CODE_LINE.findall(text))
    if "**" in text:
        text = _EMPHASIS.sub("", text)
    fact = _FACT if _HAS_OPERATOR.search(text) else _DIGITS
    yield from fact.findall(text if text.isascii() else text.translate(_DASHES))


def _hash(text: str) -> int:
    """63 bits, the same in every process."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
