"""A chart, and what all charts share: sizes, colours, channels and the frame of a Vega-Lite specification.

Colours are CSS variables of the page. A chart as wide as the page has a second specification for narrow
screens, because letters shrink with a drawing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

Spec: TypeAlias = dict[str, Any]

# Widths and heights are in pixels.
WIDE, HALF, NARROW = 960, 440, 350
USER, ASSISTANT, PLAIN, BAD, SOFT = (
    f"var(--{name})" for name in ("user", "assistant", "plain", "bad", "soft")
)
INK, MUTED = "var(--ink)", "var(--muted)"

_CONFIG: Spec = {
    "background": None,
    "view": {"stroke": None},
    "font": "sans-serif",
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
    },
    "header": {"labelColor": MUTED, "labelFontSize": 11, "titleColor": MUTED},
    "bar": {"cornerRadiusEnd": 2},
    "text": {"color": INK, "fontSize": 11},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One drawing. `title` describes it to people who can't see it; `narrow` is for narrow screens."""

    title: str
    spec: Spec
    narrow: Spec | None = None

    @classmethod
    def of_page_width(cls, title: str, spec_at: Callable[[int], Spec]) -> Self:
        """`spec_at`: a width in pixels -> the specification."""
        return cls(title=title, spec=spec_at(WIDE), narrow=spec_at(NARROW))


def frame(**parts: Any) -> Spec:
    """A whole specification, given the parts that are its own."""
    schema = "https://vega.github.io/schema/vega-lite/v6.json"
    return {"$schema": schema, "padding": 2, "config": _CONFIG, **parts}


def framed(values: Sequence[Mapping[str, object]], *, width: int, height: int | Spec, **parts: Any) -> Spec:
    """A specification over these values. `height`: {"step": pixels of each name} for bars with names."""
    fit = "fit" if isinstance(height, int) else "fit-x"
    return frame(
        width=width,
        height=height,
        autosize={"type": fit, "contains": "padding"},
        data={"values": list(values)},
        **parts,
    )


def quantitative(field: str, **parts: Any) -> Spec:
    """A channel for numbers."""
    return {"field": field, "type": "quantitative", **parts}


def nominal(field: str, **parts: Any) -> Spec:
    """A channel for names."""
    return {"field": field, "type": "nominal", **parts}


def name_axis(field: str, *, gap: float) -> Spec:
    """The y channel of bars with names, in the order of the values. `gap`: between bars, 0..1."""
    axis = {"labelColor": INK, "labelLimit": 150}
    return nominal(field, sort=None, title=None, axis=axis, scale={"paddingInner": gap})
