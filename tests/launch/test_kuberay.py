"""jobs/kuberay, offline: the schemas of the API, the rules of the operator, and the shell inside."""

import copy
import datetime
import os
import re
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cronsim import CronSim
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

from magpie_ray.config.schema import load_config
from tests.launch.files import ROOT, entrypoint_of
from tests.launch.manifests import FOLDER, MANIFESTS, check, documents

KUBERAY = ROOT / "jobs/kuberay"
FILES = [path for path in MANIFESTS if path.name != "kustomization.yaml"]
SPECS: dict[str, dict[str, Any]] = {
    "rayjob.yaml": documents(KUBERAY / "rayjob.yaml")[0]["spec"],
    "rayjob-kueue.yaml": documents(KUBERAY / "rayjob-kueue.yaml")[0]["spec"],
    "raycronjob.yaml": documents(KUBERAY / "raycronjob.yaml")[0]["spec"]["jobTemplate"],
}
CRON = documents(KUBERAY / "cronjob.yaml")[0]
TICK_POD = CRON["spec"]["jobTemplate"]["spec"]["template"]["spec"]
every_job = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
needs_schemas = pytest.mark.skipif(not FOLDER, reason="MAGPIE_RAY_K8S_SCHEMAS names no folder of schemas")


def pods(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The pods of a job: submitter, head, workers."""
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"]["spec"], *(group["template"]["spec"] for group in groups)]


def workers(spec: dict[str, Any]) -> dict[str, Any]:
    group: dict[str, Any] = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    return group


@needs_schemas
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_api_server_takes_every_document(path: Path) -> None:
    for document in documents(path):
        check(document)


def misspell(name: str, inside: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        found = inside(document)
        found[name[:-1] + "X"] = found.pop(name)

    return change


@needs_schemas
@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("rayjob.yaml", misspell("backoffLimit", lambda job: job["spec"])),
        ("rayjob.yaml", lambda job: job["spec"].update(backoffLimit="three")),
        (
            "rayjob.yaml",
            misspell("maxReplicas", lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]),
        ),
        ("rayjob.yaml", misspell("tolerations", lambda job: pods(job["spec"])[2])),
        ("rayjob.yaml", misspell("limits", lambda job: pods(job["spec"])[2]["containers"][0]["resources"])),
        ("raycronjob.yaml", misspell("timeZone", lambda job: job["spec"])),
        ("cronjob.yaml", misspell("concurrencyPolicy", lambda job: job["spec"])),
        ("cronjob.yaml", lambda job: job["spec"].pop("schedule")),
    ],
)
def test_a_slip_would_be_seen(file: str, change: Callable[[Any], None]) -> None:
    document = copy.deepcopy(documents(KUBERAY / file)[0])
    change(document)
    with pytest.raises(jsonschema.ValidationError):
        check(document)


@every_job
def test_the_operator_takes_it(spec: dict[str, Any]) -> None:
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    assert spec.get("submissionMode", "K8sJobMode") == "K8sJobMode"
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52)
    assert all(pod["restartPolicy"] == "Never" for pod in pods(spec))
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@every_job
def test_a_pod_has_time_to_commit_what_it_has_finished(spec: dict[str, Any]) -> None:
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S + 20


@every_job
def test_every_mount_has_its_volume(spec: dict[str, Any]) -> None:
    for pod in [*pods(spec), TICK_POD]:
        volumes = {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes


@every_job
def test_the_entrypoint_would_run(spec: dict[str, Any]) -> None:
    path, overrides = entrypoint_of(spec["entrypoint"])
    config = load_config(path, overrides)
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    assert config.cluster.num_actors == sum(group["maxReplicas"] for group in groups)
    assert config.engine.device == "cuda"
    assert {"GPU"} == {
        name.removeprefix("nvidia.com/").upper()
        for group in groups
        for name in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        if "/" in name
    }


@every_job
def test_its_runtime_environment_is_that_of_a_submitted_job(spec: dict[str, Any]) -> None:
    submitted = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": submitted["env_vars"]}


@every_job
def test_head_and_workers_get_the_same_secrets_and_none_is_written_here(spec: dict[str, Any]) -> None:
    _, head, worker = (pod["containers"][0].get("env", []) for pod in pods(spec))
    assert head == worker
    assert all(set(variable["valueFrom"]) == {"secretKeyRef"} for variable in head)
    names = [variable["name"] for variable in head]
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"} <= set(names)


def test_the_variants_differ_from_the_plain_job_only_where_they_say() -> None:
    plain = SPECS["rayjob.yaml"]
    assert SPECS["raycronjob.yaml"] == plain
    queued = copy.deepcopy(SPECS["rayjob-kueue.yaml"])
    cluster = queued["rayClusterSpec"]
    assert cluster.pop("enableInTreeAutoscaling") is False
    group = workers(queued)
    assert group.pop("replicas") == group.pop("minReplicas") == group["maxReplicas"]
    expected = copy.deepcopy(plain)
    for name in ("enableInTreeAutoscaling", "autoscalerOptions"):
        del expected["rayClusterSpec"][name]
    for name in ("replicas", "minReplicas"):
        assert workers(expected).pop(name) == 0
    assert queued == expected
    [document] = documents(KUBERAY / "rayjob-kueue.yaml")
    assert "kueue.x-k8s.io/queue-name" in document["metadata"]["labels"]


def test_names_leave_room_for_what_is_put_behind_them() -> None:
    longest = {"RayJob": 47, "RayCronJob": 36, "CronJob": 47 - len("-20261126-0200")}
    for path in FILES:
        for document in documents(path):
            name, limit = document["metadata"]["name"], longest.get(document["kind"])
            assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
            assert limit is None or len(name) <= limit
            assert limit is None or f"at most {limit}" in path.read_text() or "kueue" in path.name


@pytest.mark.parametrize("file", ["cronjob.yaml", "raycronjob.yaml"])
def test_schedules_are_schedules(file: str) -> None:
    spec = documents(KUBERAY / file)[0]["spec"]
    assert "TZ" not in spec["schedule"]
    ticks = CronSim(
        spec["schedule"], datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(spec["timeZone"]))
    )
    # The build of a tick is named by its day, so ticks of one day would be one build.
    assert next(ticks).date() < next(ticks).date()


def test_the_tick_may_do_what_it_does_and_no_more() -> None:
    _, account, role, binding = documents(KUBERAY / "cronjob.yaml")
    assert TICK_POD["serviceAccountName"] == account["metadata"]["name"] == binding["subjects"][0]["name"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    [kustomization] = documents(KUBERAY / "kustomization.yaml")
    assert binding["subjects"][0]["namespace"] == kustomization["namespace"]
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]
    assert CRON["spec"]["concurrencyPolicy"] == "Forbid"


def test_kustomize_gives_the_tick_its_files() -> None:
    [kustomization] = documents(KUBERAY / "kustomization.yaml")
    known = {"apiVersion", "kind", "namespace", "resources", "configMapGenerator", "generatorOptions"}
    assert set(kustomization) == known
    for name in [
        *kustomization["resources"],
        *(generator := kustomization["configMapGenerator"][0])["files"],
    ]:
        assert (KUBERAY / name).is_file()
    assert TICK_POD["volumes"][0]["configMap"]["name"] == generator["name"]
    assert TICK_POD["containers"][0]["command"][-1] == "/rayjob/tick.sh"
    assert set(generator["files"]) == {"rayjob.yaml", "tick.sh"}


FAKE_KUBECTL = """#!/bin/sh
echo "$@" >> "$LOG"
case $1 in
  get) test -e "$HERE" ;;
  patch) case $* in *jsonpath*) echo "$ENTRYPOINT" ;; *) echo patched ;; esac ;;
  create) touch "$HERE" ;;
esac
"""


def tick(tmp_path: Path, job_name: str) -> str:
    """What tick.sh asks of kubectl; a second time on the same folder, the RayJob is there."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(FAKE_KUBECTL)
    kubectl.chmod(0o755)
    log = tmp_path / "log"
    log.unlink(missing_ok=True)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(log), "HERE": str(tmp_path / "there")}
    env |= {"ENTRYPOINT": SPECS["rayjob.yaml"]["entrypoint"], "JOB_NAME": job_name, "JOB_UID": "6e5"}
    subprocess.run(["sh", str(KUBERAY / "tick.sh")], env=env, check=True, capture_output=True)
    return log.read_text()


def test_a_tick_creates_a_rayjob_named_by_the_time_it_was_due(tmp_path: Path) -> None:
    due = datetime.datetime(2026, 11, 26, 2, 0, tzinfo=datetime.UTC)
    asked = tick(tmp_path, f"magpie-llama-{int(due.timestamp()) // 60}")
    assert asked.splitlines()[0] == "get rayjob magpie-llama-20261126-0200 --output name"
    patch = yaml.safe_load(asked.split("--patch \n")[1].split(" --output yaml")[0])
    assert patch["metadata"]["name"] == "magpie-llama-20261126-0200"
    [owner] = patch["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", "6e5")
    named = f"{SPECS['rayjob.yaml']['entrypoint']} output.build_id=magpie-llama-20261126-0200"
    assert patch["spec"] == {"entrypoint": named}


def test_a_tick_that_is_tried_again_creates_nothing(tmp_path: Path) -> None:
    assert "create" in tick(tmp_path, "magpie-llama-29401320")
    assert "create" not in tick(tmp_path, "magpie-llama-29401320")


def test_a_tick_by_hand_keeps_the_name_it_was_given(tmp_path: Path) -> None:
    assert "get rayjob magpie-llama-now " in tick(tmp_path, "magpie-llama-now")


def test_the_shell_is_sound() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    linted = subprocess.run([shellcheck, KUBERAY / "tick.sh"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
