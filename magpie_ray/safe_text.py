"""Text that was read from somewhere, made harmless to look at.

Generated text is data: what could move a terminal's cursor, colour it or turn the direction of writing is
made visible instead.
"""

import unicodedata

# Zero-width, but part of how Persian, Indic scripts and emoji are written.
_JOINERS = "\u200c\u200d"


def visible(text: str) -> str:
    """Text on one line, white space and control characters shown: line breaks as ⏎, spaces at the ends of
    lines as ␣, the rest as escapes."""
    shown = "⏎".join(_ends_visible(line) for line in text.split("\n"))
    return "".join(c if c == " " or c.isprintable() else ascii(c)[1:-1] for c in shown)


def _ends_visible(line: str) -> str:
    inner = line.strip(" ")
    begin = len(line) - len(line.lstrip(" "))
    return "␣" * begin + inner + "␣" * (len(line) - begin - len(inner))


def safe(text: str) -> str:
    """Text for a screen: its control characters (escape sequences, overrides of direction) do nothing."""
    return "".join(c if c in "\n\t" or is_harmless(c) else ascii(c)[1:-1] for c in text)


def is_harmless(character: str) -> bool:
    """Whether it only stands for itself."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
