"""The dashboard: what Grafana takes, and no query for what nobody exports."""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from magpie_ray.monitoring.metrics import METRICS, exported_names
from tests.monitoring.dashboard import DASHBOARD, metric_names, panels, queries, selectors
from tests.support.paths import ROOT


def source_of(package: str, path: str) -> str:
    """A file of an installed package, without importing it: vLLM takes ten seconds."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / path).read_text()


def names_of_vllm() -> set[str]:
    """What vLLM exports through Ray, with every ending that Prometheus gives a name."""
    names = re.findall(r'name="vllm:(\w+)"', source_of("vllm", "v1/metrics/loggers.py"))
    assert len(names) > 20
    return {
        f"ray_vllm_{name}{ending}" for name in names for ending in ("", "_total", "_bucket", "_sum", "_count")
    }


def names_of_ray() -> set[str]:
    """What Ray's own dashboard asks for."""
    text = source_of("ray", "dashboard/modules/metrics/dashboards/default_dashboard_panels.py")
    return set(re.findall(r"ray_node_\w+", text))


def kept(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where a value is not the same after Grafana's own types have read and written it."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from kept(value, theirs.get(key, "nothing"), f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from kept(*pair, f"{path}/{number}")
    elif ours != theirs:
        yield f"{path}: {ours!r} is read as {theirs!r}"


def test_grafanas_own_types_know_every_key_and_keep_every_value() -> None:
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    assert list(kept(DASHBOARD, read)) == []


def test_every_query_names_a_metric_that_somebody_exports() -> None:
    known = {*exported_names(), *names_of_vllm(), *names_of_ray()}
    for query in queries():
        assert metric_names(query) - known == set(), query


def test_every_metric_of_ours_is_shown() -> None:
    shown = {name for query in queries() for name in metric_names(query)}
    for metric in METRICS:
        assert any(name.startswith(f"ray_{metric.name}") for name in shown), metric.name


def test_queries_look_at_the_chosen_session_and_build_alone() -> None:
    for query in queries():
        for name, labels in selectors(query):
            assert labels["SessionName"] == "$SessionName", query
            assert ("build" in labels) == name.startswith("ray_magpie_ray_"), query
            assert labels.get("build", "$build") == "$build", query


def test_labels_that_queries_sum_by_are_those_of_the_metrics() -> None:
    labels = {f"ray_{metric.name}": {*metric.labels, "build", "run", "le"} for metric in METRICS}
    for query in queries():
        if not all(name.startswith("ray_magpie_ray_") for name in metric_names(query)):
            continue
        names = {re.sub("_bucket$", "", name) for name in metric_names(query)}
        for group in re.findall(r"by \((\w+)\)", query):
            assert any(group in labels[name] for name in names), query


def test_panels_have_ids_of_their_own_and_places_that_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles)
    for panel in DASHBOARD["panels"]:
        assert 0 <= panel["gridPos"]["x"] <= panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_the_variables_are_those_of_rays_own_dashboards() -> None:
    base = json.loads(
        source_of("ray", "dashboard/modules/metrics/dashboards/default_grafana_dashboard_base.json")
    )
    theirs = {variable["name"]: variable for variable in base["templating"]["list"]}
    ours = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert ours.keys() - theirs.keys() == {"build"}
    assert ours["datasource"]["query"] == theirs["datasource"]["query"] == "prometheus"
    for variable in (ours["SessionName"], ours["build"]):
        [expression] = re.findall(r"label_values\((.*), \w+\)", variable["query"]["query"])
        assert metric_names(expression) <= set(exported_names())
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels())


def test_the_provider_is_a_file_provider_that_does_not_share_rays_name() -> None:
    provided = yaml.safe_load((ROOT / "jobs/grafana/provider.yaml").read_text())
    [provider] = provided["providers"]
    assert (provided["apiVersion"], provider["type"]) == (1, "file")
    assert provider["name"] != "Ray"


def test_a_query_that_is_no_promql_is_found() -> None:
    with pytest.raises(ValueError, match=r"invalid|unexpected|unclosed"):
        metric_names("sum(rate(ray_x[5m])")
    assert promql_parser.parse("up") is not None
