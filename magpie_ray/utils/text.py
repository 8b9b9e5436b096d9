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


def bytes_text(size: float) -> str:
    """Three digits and a unit, powers of a thousand: 216 kB."""
    rounded = float(f"{size:.3g}")
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if rounded >= unit:
            return f"{rounded / unit:,g} {name}"
    return f"{size:,.0f} bytes"


def span_text(seconds: float) -> str:
    """In the largest unit of which there are two or more: 90 s, 10 min, 24.0 h."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"


def clock_text(seconds: float) -> str:
    """As 3:20, or with hours 1:01:01."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


# Where there is no figure.
NONE = "\u2013"


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and how much is left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def percent(part: float) -> str:
    """To a tenth of a percent; what is not all or nothing is not shown as that."""
    if 0 < part < 0.0005:
        return "under 0.1%"
    if 0.9995 <= part < 1:
        return "over 99.9%"
    return f"{part:.1%}".replace(".0%", "%")


def three_digits(number: float) -> str:
    """Three digits."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def rounded(number: float) -> str:
    for size, name in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (1e3 if name == 'k' else size):.3g}{name}"
    return f"{number:,.0f}"
