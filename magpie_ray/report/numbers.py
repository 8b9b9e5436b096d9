"""Numbers and long texts as a page has them."""

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
