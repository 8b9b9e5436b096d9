"""Sizes and spans of time as people read them."""


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
