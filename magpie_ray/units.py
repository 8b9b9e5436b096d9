"""Sizes and spans of time as people read them."""


def bytes_text(size: float) -> str:
    """Three digits and a unit, powers of a thousand: 216 kB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.3g} {name}"
    return f"{size:,.0f} bytes"


def span_text(seconds: float) -> str:
    """In the largest unit of which there are two or more: 90 s, 10 min, 24.0 h."""
    if seconds < 120:
        return f"{seconds:,.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 172_800 else f"{seconds / 86_400:,.1f} days"
