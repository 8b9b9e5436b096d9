"""Charts as SVG that stands inside a page.

What always holds: only drawing elements and their geometry come through, text as text; no script, link, style
or foreign content can; names inside a drawing are its own, so that several share a page; colours are the
page's variables, so that they follow light and dark.
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from magpie_ray.errors import ReportError

_SVG = "http://www.w3.org/2000/svg"
_ELEMENTS = {"svg", "g", "path", "rect", "line", "circle", "text", "tspan", "title", "defs", "clipPath"}
_PAINT = "fill stroke opacity fill-opacity stroke-opacity stroke-width stroke-dasharray stroke-linecap"
_SHAPE = "d x y x1 x2 y1 y2 r rx ry cx cy dx dy width height viewBox transform clip-path"
_OTHER = "class display pointer-events text-anchor font-size font-weight font-style stroke-linejoin"
_ATTRIBUTES = frozenset(f"{_PAINT} {_SHAPE} {_OTHER} stroke-miterlimit".split())
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")
# A dozen charts take two seconds of a core; other work on it may be in the way.
_SECONDS = 120.0


def draw(specs: Mapping[str, Mapping[str, Any]], titles: Mapping[str, str]) -> dict[str, str]:
    """The SVG of each Vega-Lite specification. `titles`: what each shows, for those who can't see it.

    ReportError when the renderer fails or takes too long.
    """
    if not specs:
        return {}
    program = str(Path(__file__).with_name("vega_program.py"))
    try:
        done = subprocess.run(
            [sys.executable, "-P", program],
            input=json.dumps(specs),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=_SECONDS,
            check=True,
        )
        svgs = json.loads(done.stdout)
    except subprocess.CalledProcessError as exc:
        said = exc.stderr.strip().splitlines()[-1:] or [f"it ended with {exc.returncode}"]
        raise ReportError(f"the charts could not be drawn (vl-convert-python): {said[0]}") from exc
    except (OSError, ValueError, subprocess.TimeoutExpired) as exc:
        raise ReportError(f"the charts could not be drawn (vl-convert-python): {exc}") from exc
    return {name: _clean(svg, name, titles[name]) for name, svg in svgs.items()}


def _clean(svg: str, name: str, title: str) -> str:
    ET.register_namespace("", _SVG)
    root = _copy(ET.fromstring(svg), name)
    assert root is not None, "a drawing is an svg"
    root.set("role", "img")
    root.set("aria-label", title)
    (
        root.attrib.pop("width"),
        root.attrib.pop("height"),
    )  # as wide as there is room; the view box has the shape
    return ET.tostring(root, encoding="unicode")


def _copy(element: ET.Element, name: str) -> ET.Element | None:
    """The element with what is allowed in it; what a mark stands for becomes its tooltip."""
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
