"""The Grafana dashboard's panels and what their queries ask for."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import promql_parser

from tests.support.paths import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "jobs/grafana/magpie_ray.json").read_text())


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def selectors(query: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Names with their label matchers. ValueError when it is no PromQL."""
    expression = query.replace("$__rate_interval", "1m").replace("$__range", "1h")
    nodes: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), nodes.append)
    for node in nodes:
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {matcher.name: matcher.value for matcher in node.matchers.matchers}


def metric_names(query: str) -> set[str]:
    return {name for name, _ in selectors(query)}
