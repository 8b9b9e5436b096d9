"""Text for people: generated text made harmless to look at, and numbers, sizes and times as they read well.

Generated text is data. Invariant: text that went through `safe` or `visible` can't move a terminal's cursor,
colour it or turn the direction of writing; the characters that could are shown as escapes.
"""

import re
import unicodedata

# Stands where there is no figure.
NO_FIGURE = "\u2013"

# Zero-width, but part of how Persian, Indic scripts and emoji are written.
_JOINERS = "\u200c\u200d"

_POWERS = (1e12, 1e9, 1e6, 1e3)


def safe(text: str) -> str:
    """Text for a screen: its control characters (escape sequences, overrides of direction) do nothing."""
    return "".join(c if c in "\n\t" or is_harmless(c) else ascii(c)[1:-1] for c in text)


def is_harmless(character: str) -> bool:
    """Whether the character only stands for itself."""
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def visible(text: str) -> str:
    """Text on one line with its white space shown: line breaks as ⏎, spaces at the ends of lines as ␣.

    Control characters are escaped.
    """
    shown = re.sub("(?m)^ +| +$", lambda blanks: "␣" * len(blanks[0]), text).replace("\n", "⏎")
    return "".join(c if c == " " or c.isprintable() else ascii(c)[1:-1] for c in shown)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and how many characters are left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it needs one: 1 file, 1,200 files."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def percent(part: float) -> str:
    """To a tenth of a percent. A part that is neither nothing nor all is never shown as 0% or 100%."""
    if 0 < part < 0.0005:
        return "under 0.1%"
    if 0.9995 <= part < 1:
        return "over 99.9%"
    return f"{part:.1%}".replace(".0%", "%")


def three_digits(number: float) -> str:
    """Rounded to three digits: 0.0123, 45.6, 12,300."""
    return f"{float(f'{number:.3g}'):,.15g}"


def short_number(number: float) -> str:
    """In full below 10,000; above that three digits and a power of a thousand: 74.7k, 12.3M, 3.2B."""
    return _scaled(number, ("T", "B", "M", "k")) if number >= 1e4 else f"{number:,.0f}"


def bytes_text(size: float) -> str:
    """Three digits and a unit, powers of a thousand: 216 kB."""
    return _scaled(size, (" TB", " GB", " MB", " kB")) if size >= 999.5 else f"{size:,.0f} bytes"


def _scaled(number: float, names: tuple[str, ...]) -> str:
    """`number`, which rounds to 1,000 or more, in the largest power of a thousand that it reaches."""
    rounded = float(f"{number:.3g}")
    return next(
        f"{rounded / power:,g}{name}" for power, name in zip(_POWERS, names, strict=True) if rounded >= power
    )


def span_text(seconds: float) -> str:
    """In the largest unit of which there are two or more: 90 s, 10 min, 24.0 h, 3.0 days."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"


def clock_text(seconds: float) -> str:
    """As 3:20, or with hours 1:01:01."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def fenced(text: str, language: str) -> str:
    """A code block of Markdown whose fence is longer than every run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}{fence}"
