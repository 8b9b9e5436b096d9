"""Vega-Lite specifications to SVG. Runs as a program beside the driver and imports nothing of magpie_ray.

Standard input: JSON, {name: specification}. Standard output: JSON, {name: SVG}. A failure names the chart.
The renderer is a JavaScript engine: in a process of its own, its memory and its crashes end with it.
"""

import json
import sys
from typing import Any

import vl_convert


def _svg(name: str, spec: dict[str, Any]) -> str:
    try:
        return str(vl_convert.vegalite_to_svg(spec, vl_version="6.4"))
    except ValueError as exc:
        error = next((line for line in str(exc).splitlines() if "Error:" in line), str(exc))
        sys.exit(f"{name}: {error}")


if __name__ == "__main__":
    json.dump({name: _svg(name, spec) for name, spec in json.load(sys.stdin).items()}, sys.stdout)
