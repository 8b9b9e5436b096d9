"""Vega-Lite specifications to SVG: the program that runs beside the driver, and imports nothing of ours.

JSON in, JSON out: {name: specification} to {name: SVG}; on failure it names the chart. In a process of its
own because the renderer is a JavaScript engine: whatever becomes of it, its memory and failures end here.
"""

import json
import sys
from typing import Any

import vl_convert


def _svg(name: str, spec: dict[str, Any]) -> str:
    try:
        return str(vl_convert.vegalite_to_svg(spec, vl_version="6.4"))
    except ValueError as exc:
        told = next((line for line in str(exc).splitlines() if "Error:" in line), str(exc))
        sys.exit(f"{name}: {told}")


if __name__ == "__main__":
    json.dump({name: _svg(name, spec) for name, spec in json.load(sys.stdin).items()}, sys.stdout)
