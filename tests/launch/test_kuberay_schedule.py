"""A build at each tick: components/schedule, as kustomize puts it together, and the shell inside."""

import copy
import datetime
import json
import os
import shutil
import subprocess
import sys
import zoneinfo
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from cronsim import CronSim

from tests.launch.manifests import (
    KUBERAY,
    Document,
    breaches_of_restricted,
    check,
    copied,
    kustomized,
    needs_kubectl,
    needs_schemas,
    one,
)

SCHEDULE = KUBERAY / "components/schedule"


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("nightly"), ["eks", "kueue"])


@pytest.fixture(scope="module")
def nightly(mine: Path) -> list[Document]:
    return kustomized(mine / "nightly")


@pytest.fixture(scope="module")
def job(mine: Path) -> Document:
    """The RayJob of the build that is scheduled."""
    return one(kustomized(mine / "once"), "RayJob")


def tick_pod(nightly: list[Document]) -> dict[str, Any]:
    pod: dict[str, Any] = one(nightly, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


@needs_kubectl
@needs_schemas
def test_the_api_server_takes_every_document(nightly: list[Document]) -> None:
    for document in nightly:
        check(document)


@needs_kubectl
@needs_schemas
@pytest.mark.parametrize(
    ("kind", "name"), [("CronJob", "concurrencyPolicy"), ("CronJob", "timeZone"), ("RayCronJob", "suspend")]
)
def test_a_slip_would_be_seen(nightly: list[Document], kind: str, name: str) -> None:
    document = copy.deepcopy(one(nightly, kind))
    document["spec"][f"{name}X"] = document["spec"].pop(name)
    with pytest.raises(jsonschema.ValidationError):
        check(document)


@needs_kubectl
def test_the_template_is_the_build_as_all_components_have_left_it(
    nightly: list[Document], job: Document
) -> None:
    assert "RayJob" not in {document["kind"] for document in nightly}  # nothing runs before the first tick
    template = one(nightly, "RayCronJob")
    assert template["metadata"]["labels"] == job["metadata"]["labels"]
    assert template["spec"]["suspend"] is True
    found, expected = (copy.deepcopy(each) for each in (template["spec"]["jobTemplate"], job["spec"]))
    volumes = [
        spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].pop("volumes")
        for spec in (found, expected)
    ]
    assert found == expected
    names = {document["metadata"]["name"] for document in nightly if document["kind"] == "ConfigMap"}
    assert volumes[0][0]["configMap"]["name"] in names


@needs_kubectl
def test_the_tick_finds_its_template_and_its_script(nightly: list[Document]) -> None:
    [container] = tick_pod(nightly)["containers"]
    assert container["args"] == [one(nightly, "RayCronJob")["metadata"]["name"]]
    [volume] = tick_pod(nightly)["volumes"]
    [script] = [each for each in nightly if each["metadata"]["name"] == volume["configMap"]["name"]]
    assert script["kind"] == "ConfigMap"
    [mount] = container["volumeMounts"]
    assert container["command"] == ["sh", f"{mount['mountPath']}/tick.sh"]
    assert script["data"]["tick.sh"] == (SCHEDULE / "tick.sh").read_text()


@needs_kubectl
def test_the_tick_may_do_what_it_does_and_no_more(nightly: list[Document]) -> None:
    account, role = one(nightly, "ServiceAccount"), one(nightly, "Role")
    binding = one(nightly, "RoleBinding")
    [subject] = binding["subjects"]
    assert tick_pod(nightly)["serviceAccountName"] == account["metadata"]["name"] == subject["name"]
    assert subject["namespace"] == account["metadata"]["namespace"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert role["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["raycronjobs"], "verbs": ["get"]},
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]},
    ]
    assert breaches_of_restricted(tick_pod(nightly)) == []


@needs_kubectl
def test_the_schedule_is_one_and_gives_each_day_one_build(nightly: list[Document]) -> None:
    cron = one(nightly, "CronJob")
    assert len(cron["metadata"]["name"]) <= 47 - len("-20261126-0200")
    assert len(one(nightly, "RayCronJob")["metadata"]["name"]) <= 36
    spec = cron["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert "TZ" not in spec["schedule"]
    start = datetime.datetime(2026, 1, 1, tzinfo=zoneinfo.ZoneInfo(spec["timeZone"]))
    ticks = CronSim(spec["schedule"], start)
    # The build of a tick is named by its day, so ticks of one day would be one build.
    assert next(ticks).date() < next(ticks).date()


# What a cluster would answer; everything that needs none is done by the real kubectl.
FAKE_KUBECTL = """#!/bin/sh
case "$1 $2" in
  'get rayjob') test -e "$HERE/created.yaml" && echo "$3" ;;
  'get raycronjob') [ "$3" = magpie-nightly ] && "$KUBECTL" patch --local --filename "$HERE/template.yaml" \\
    --type merge --patch '{}' --output "$5" ;;
  'create --filename') cat > "$HERE/created.yaml" ;;
  *) exec "$KUBECTL" "$@" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path: Path, nightly: list[Document]) -> Path:
    """A folder that stands for a cluster: with the template, and with the RayJob once one is created."""
    (tmp_path / "template.yaml").write_text(yaml.safe_dump(one(nightly, "RayCronJob")))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").write_text(FAKE_KUBECTL)
    (tmp_path / "bin/kubectl").chmod(0o755)
    return tmp_path


def tick(cluster: Path, job_name: str) -> Document | None:
    """Runs the script of a tick, and takes the RayJob that it created."""
    created = cluster / "created.yaml"
    before = created.exists()
    env = {"PATH": f"{cluster / 'bin'}:{os.environ['PATH']}", "HERE": str(cluster), "HOME": str(cluster)}
    env |= {"KUBECTL": str(shutil.which("kubectl")), "JOB_NAME": job_name, "JOB_UID": "6e5"}
    run = ["sh", str(SCHEDULE / "tick.sh"), "magpie-nightly"]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if before:
        assert "is there already" in done.stdout
        return None
    found: Document = yaml.safe_load(created.read_text())
    return found


@needs_kubectl
def test_a_tick_creates_a_rayjob_named_by_the_time_it_was_due(
    cluster: Path, nightly: list[Document], job: Document
) -> None:
    due = datetime.datetime(2026, 11, 26, 2, 0, tzinfo=datetime.UTC)
    created = tick(cluster, f"magpie-nightly-{int(due.timestamp()) // 60}")
    assert created is not None
    name = "magpie-nightly-20261126-0200"
    assert (created["apiVersion"], created["kind"]) == ("ray.io/v1", "RayJob")
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "magpie-nightly-29735160", "uid": "6e5"}
    owner["name"] = f"magpie-nightly-{int(due.timestamp()) // 60}"
    assert created["metadata"] == {
        "name": name,
        "labels": job["metadata"]["labels"],
        "ownerReferences": [owner],
    }
    template = one(nightly, "RayCronJob")["spec"]["jobTemplate"]
    named = f"{template['entrypoint']} output.build_id={name}"
    assert created["spec"] == {**template, "entrypoint": named}
    assert json.dumps(created["spec"]["runtimeEnvYAML"]).count("\\n") == 3  # the shell left its lines alone


@needs_kubectl
def test_a_tick_that_is_tried_again_creates_nothing(cluster: Path) -> None:
    assert tick(cluster, "magpie-nightly-29401320") is not None
    assert tick(cluster, "magpie-nightly-29401320") is None


@needs_kubectl
def test_a_tick_by_hand_keeps_the_name_it_was_given(cluster: Path) -> None:
    created = tick(cluster, "magpie-nightly-now")
    assert created is not None
    assert created["metadata"]["name"] == "magpie-nightly-now"


def test_the_shell_is_sound() -> None:
    shellcheck = Path(sys.executable).parent / "shellcheck"
    linted = subprocess.run([shellcheck, SCHEDULE / "tick.sh"], capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout
