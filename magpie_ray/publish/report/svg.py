"""Charts as SVG that stands inside a page.

Invariants: only drawing elements and their geometry come through, text as text; no script, link, style or
foreign content does. Ids are prefixed with the chart's name, so that several charts share a page. Colours are
variables of the page, so that they follow light and dark.
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

from markupsafe import Markup

from magpie_ray.errors import ReportError
from magpie_ray.publish.report.chart import Chart

_SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = {"svg", "g", "path", "rect", "line", "circle", "text", "tspan", "title", "defs", "clipPath"}
_PAINT = "fill stroke opacity fill-opacity stroke-opacity stroke-width stroke-dasharray stroke-linecap"
_SHAPE = "d x y x1 x2 y1 y2 r rx ry cx cy dx dy width height viewBox transform clip-path"
_OTHER = "class display pointer-events text-anchor font-size font-weight font-style stroke-linejoin"
_ATTRIBUTES = frozenset(f"{_PAINT} {_SHAPE} {_OTHER} stroke-miterlimit".split())
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")
# A dozen charts take two seconds of a core; other work on it may be in the way.
DRAWING_SECONDS = 120.0


def draw(charts: Mapping[str, Chart], *, seconds: float = DRAWING_SECONDS) -> dict[str, tuple[Markup, ...]]:
    """The SVG of each chart, and behind it the one for narrow screens, if the chart has one.

    ReportError when the renderer fails or takes more than `seconds`.
    """
    specs = {name: chart.spec for name, chart in charts.items()}
    narrow = {f"{name}-narrow": chart.narrow for name, chart in charts.items() if chart.narrow}
    svgs = _render(specs | narrow, seconds) if specs else {}
    return {
        name: tuple(clean(svgs[id], id, chart.title) for id in (name, f"{name}-narrow") if id in svgs)
        for name, chart in charts.items()
    }


def _render(specs: Mapping[str, object], seconds: float) -> dict[str, str]:
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("vega_program.py"))],
            input=json.dumps(specs),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=seconds,
            check=True,
        )
        svgs: dict[str, str] = json.loads(done.stdout)
    except subprocess.CalledProcessError as exc:
        reason = (exc.stderr.strip().splitlines() or [f"it ended with {exc.returncode}"])[-1]
        raise ReportError(f"the charts could not be drawn (vl-convert-python): {reason}") from exc
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        raise ReportError(f"the charts could not be drawn (vl-convert-python): {exc}") from exc
    return svgs


def clean(svg: str, name: str, title: str) -> Markup:
    """A drawing without anything that a page must not hold.

    name: prefix of its ids. title: what it shows, for people who can't see it.
    """
    ET.register_namespace("", _SVG)
    root = _copy(ET.fromstring(svg), name)
    assert root is not None, "a drawing is an svg"
    root.set("role", "img")
    root.set("aria-label", title)
    for size in ("width", "height"):  # it fills its place; the view box keeps its shape
        del root.attrib[size]
    return Markup(ET.tostring(root, encoding="unicode"))


def _copy(element: ET.Element, name: str) -> ET.Element | None:
    """The element with its allowed parts; its aria-label becomes a tooltip."""
    tag = element.tag.removeprefix(f"{{{_SVG}}}")
    if tag not in _ELEMENTS:
        return None
    copy = ET.Element(f"{{{_SVG}}}{tag}")
    for key, value in element.attrib.items():
        if key == "id":
            copy.set(key, f"{name}-{value}")
        elif key in _ATTRIBUTES:
            copy.set(key, _REFERENCE.sub(rf"url(#{name}-\1)", value))
    if tag != "g" and (label := element.get("aria-label")):
        ET.SubElement(copy, f"{{{_SVG}}}title").text = label
    copy.text, copy.tail = element.text, element.tail
    copy.extend(kept for child in element if (kept := _copy(child, name)) is not None)
    return copy
