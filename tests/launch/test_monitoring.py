"""jobs/kuberay/monitoring: the alerts use the project's metrics and fire when they should, by promtool."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from magpie_ray.monitoring.metrics import COMMON_LABELS, METRICS, exported_names
from tests.launch.files import ROOT
from tests.launch.manifests import KUBERAY, documents, pods

[MONITOR] = documents(KUBERAY / "monitoring/podmonitor.yaml")
[RULE] = documents(KUBERAY / "monitoring/prometheusrule.yaml")
ALERTS = {rule["alert"]: rule for group in RULE["spec"]["groups"] for rule in group["rules"]}
every_alert = pytest.mark.parametrize("name", ALERTS)
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool")


@every_alert
def test_its_metrics_and_labels_are_exported(name: str) -> None:
    expression = ALERTS[name]["expr"]
    promql_parser.parse(expression)
    metrics = set(re.findall(r"\bray_magpie\w+", expression))
    assert metrics
    assert metrics <= set(exported_names())
    by_name = {f"ray_{metric.name}": metric for metric in METRICS}
    for metric, matchers in re.findall(r"\b(ray_magpie\w+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)!?=", matchers))
        assert labels <= {*COMMON_LABELS, *by_name[metric].labels}, metric


@every_alert
def test_what_it_shows_is_there_in_its_result(name: str) -> None:
    alert = ALERTS[name]
    shown = set(re.findall(r"\$labels\.(\w+)", json.dumps(alert["annotations"])))
    kept = set(re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", alert["expr"]))))
    kept |= {
        label.replace(".", "_").replace("/", "_").replace("-", "_")
        for label in MONITOR["spec"]["podTargetLabels"]
    }
    assert shown <= kept


def test_the_monitor_finds_the_pods_of_a_build_by_a_label_they_have() -> None:
    [job] = documents(KUBERAY / "base/rayjob.yaml")
    wanted = MONITOR["spec"]["selector"]["matchLabels"]
    _, head, worker = pods(job["spec"])
    for pod in (head, worker):
        assert wanted.items() <= pod["metadata"]["labels"].items()
    assert set(MONITOR["spec"]) == {"selector", "podTargetLabels", "podMetricsEndpoints"}


def test_a_finished_job_is_no_missing_heartbeat() -> None:
    [job] = documents(KUBERAY / "base/rayjob.yaml")
    assert ALERTS["MagpieRayNoHeartbeat"]["for"] == "15m"
    assert job["spec"]["ttlSecondsAfterFinished"] < 15 * 60


def test_the_page_names_every_alert() -> None:
    page = (ROOT / "docs/kuberay.md").read_text()
    assert re.findall(r"^\| `(MagpieRay\w+)` \|", page, re.MULTILINE) == list(ALERTS)


@needs_promtool
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(RULE["spec"]))
    checked = subprocess.run(
        ["promtool", "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    labels = {"namespace": "ml", "pod": "head-1", **labels}
    if name.startswith("ray_"):
        labels = {"build": "s3://b/x", "run": "1", **labels}
    inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"{name}{{{inside}}}", "values": values}


def up(values: str) -> dict[str, str]:
    return series(
        "up",
        values,
        ray_io_node_type="head",
        ray_io_cluster="magpie-qwen-x",
        job=f"ml/{MONITOR['metadata']['name']}",
    )


TARGET = series("ray_magpie_ray_build_target_rows", "1000x120")
ROWS = "ray_magpie_ray_generated_rows_total"
ACCEPTED, CUT = (
    ("ray_magpie_ray_attempts_total", {"reason": "accepted"}),
    ("ray_magpie_ray_attempts_total", {"reason": "truncated"}),
)
# Name of the alert; what Prometheus has scraped, a value a minute; minutes at which it fires, and does not.
CASES: dict[str, tuple[str, list[dict[str, str]], list[int], list[int]]] = {
    "an engine hangs after half an hour": (
        "MagpieRayNoProgress",
        [TARGET, series("ray_magpie_ray_build_rows", "0+10x30 300x90"), series(ROWS, "0+10x30 300x90")],
        [100],
        [30, 60, 80],
    ),
    "no engine ever comes up": (
        "MagpieRayNoProgress",
        [TARGET, series("ray_magpie_ray_build_rows", "0x120")],
        [31, 100],
        [10, 29],
    ),
    "rows come slowly but steadily": (
        "MagpieRayNoProgress",
        [TARGET, series("ray_magpie_ray_build_rows", "0x120"), series(ROWS, "0+1x120")],
        [],
        [40, 119],
    ),
    "a complete build stays up": (
        "MagpieRayNoProgress",
        [TARGET, series("ray_magpie_ray_build_rows", "1000x120"), series(ROWS, "1000x120")],
        [],
        [40, 119],
    ),
    "half of all are rejected after an hour of few": (
        "MagpieRayRejectsRising",
        [series(ACCEPTED[0], "0+100x120", **ACCEPTED[1]), series(CUT[0], "0+5x60 305+100x60", **CUT[1])],
        [95],
        [30, 60],
    ),
    "many are rejected, as ever": (
        "MagpieRayRejectsRising",
        [series(ACCEPTED[0], "0+100x120", **ACCEPTED[1]), series(CUT[0], "0+100x120", **CUT[1])],
        [],
        [30, 60, 119],
    ),
    "the driver dies and the head stays": (
        "MagpieRayNoHeartbeat",
        [up("1x120"), series("ray_magpie_ray_build_target_rows", "1000x30 _x90")],
        [60],
        [20, 40],
    ),
    "the job ends and its cluster goes": (
        "MagpieRayNoHeartbeat",
        [up("1x40 _x80"), series("ray_magpie_ray_build_target_rows", "1000x30 _x90")],
        [],
        [20, 45, 60],
    ),
    "another build's driver is no heartbeat of this one": (
        "MagpieRayNoHeartbeat",
        [up("1x120"), series("ray_magpie_ray_build_target_rows", "1000x120", pod="head-2")],
        [20],
        [10],
    ),
}


@needs_promtool
@pytest.mark.parametrize("case", CASES)
def test_it_fires_when_it_should_and_not_before(case: str, tmp_path: Path) -> None:
    name, scraped, fires, silent = CASES[case]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULE["spec"]))
    expressions = [
        {"expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}})', "eval_time": f"{minute}m"}
        | {"exp_samples": [{"value": 1}] if minute in fires else []}
        for minute in (*fires, *silent)
    ]
    test: dict[str, Any] = {"interval": "1m", "input_series": scraped, "promql_expr_test": expressions}
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
    )
    tested = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr
