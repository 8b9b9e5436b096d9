"""What charts have in common: sizes, colours, inks and the frame of a Vega-Lite specification.

Colours are the page's CSS variables. A chart that is as wide as the page comes twice, the second time for
narrow screens, where letters would shrink with the drawing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Spec: TypeAlias = dict[str, Any]

WIDE, HALF, NARROW = 960, 440, 350
USER, ASSISTANT, PLAIN, BAD, SOFT = (
    f"var(--{name})" for name in ("user", "assistant", "plain", "bad", "soft")
)
# Charts of as many bars as there are names are as high as these need.
BY_STEPS: Spec = {"autosize": {"type": "fit-x", "contains": "padding"}}

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
CONFIG: Spec = {
    "background": None,
    "view": {"stroke": None},
    "font": "sans-serif",
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "gridColor": "var(--grid)",
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
    },
    "header": {"labelColor": "var(--muted)", "labelFontSize": 11, "titleColor": "var(--muted)"},
    "bar": {"cornerRadiusEnd": 2},
    "text": {"color": "var(--ink)", "fontSize": 11},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One drawing: what it shows in words, and how. `narrow`: the same for narrow screens."""

    title: str
    spec: Spec
    narrow: Spec | None = None


def spec_of(width: int, height: int | Spec, values: Sequence[Mapping[str, object]], **parts: Any) -> Spec:
    return {
        "$schema": SCHEMA,
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": 2,
        "data": {"values": list(values)},
        "config": CONFIG,
        **parts,
    }
