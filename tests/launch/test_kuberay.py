"""jobs/kuberay, offline: put together by kustomize; the schemas of the API, and the rules of the operator."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

from magpie_ray.config.loading import load_config
from tests.launch.files import ROOT, entrypoint_of
from tests.launch.manifests import (
    COMPONENTS,
    KUBERAY,
    Document,
    breaches_of_restricted,
    check,
    copied,
    documents,
    kustomized,
    needs_kubectl,
    needs_schemas,
    one,
    pods,
)

pytestmark = needs_kubectl

CLOUDS = ("eks", "gke", "aks")
SETS = [(), ("four-gpus",), ("model-cache",), ("kueue",)]
SETS += [(cloud, "four-gpus", "model-cache", "kueue") for cloud in CLOUDS]
PLAIN = [path for path in sorted(KUBERAY.glob("*.yaml")) if path.name != "kustomization.yaml"]
STAYS = {"karpenter.sh/do-not-disrupt": "true", "cluster-autoscaler.kubernetes.io/safe-to-evict": "false"}


@pytest.fixture(scope="module", params=SETS, ids=lambda names: "+".join(names) or "plain")
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    """The documents of one build, with some of the components."""
    config = "llama-3.3-70b" if "four-gpus" in request.param else "qwen2.5-7b"
    return kustomized(copied(tmp_path_factory.mktemp("build"), request.param, config) / "once")


@pytest.fixture(scope="module")
def spec(build: list[Document]) -> Document:
    found: Document = one(build, "RayJob")["spec"]
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Document:
    return one(kustomized(copied(tmp_path_factory.mktemp("plain")) / "once"), "RayJob")


@needs_schemas
def test_the_api_server_takes_every_document(build: list[Document]) -> None:
    for document in build:
        check(document)


@needs_schemas
@pytest.mark.parametrize("path", PLAIN, ids=lambda path: path.name)
def test_the_api_server_takes_what_is_applied_as_it_is(path: Path) -> None:
    for document in documents(path):
        check(document)


def misspell(name: str, inside: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        found = inside(document)
        found[name[:-1] + "X"] = found.pop(name)

    return change


@needs_schemas
@pytest.mark.parametrize(
    "change",
    [
        misspell("backoffLimit", lambda job: job["spec"]),
        lambda job: job["spec"].update(backoffLimit="three"),
        misspell("maxReplicas", lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]),
        misspell("tolerations", lambda job: pods(job["spec"])[2]["spec"]),
        misspell("runAsNonRoot", lambda job: pods(job["spec"])[1]["spec"]["securityContext"]),
        misspell("limits", lambda job: pods(job["spec"])[2]["spec"]["containers"][0]["resources"]),
    ],
)
def test_a_slip_would_be_seen(plain: Document, change: Callable[[Any], None]) -> None:
    document = copy.deepcopy(plain)
    change(document)
    with pytest.raises(jsonschema.ValidationError):
        check(document)


def test_the_operator_takes_it(spec: Document) -> None:
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"]
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    assert spec.get("submissionMode", "K8sJobMode") == "K8sJobMode"
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52)
    assert all(pod["spec"]["restartPolicy"] == "Never" for pod in pods(spec))
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_names_leave_room_for_what_kuberay_puts_behind_them(build: list[Document]) -> None:
    for document in build:
        name = document["metadata"]["name"]
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 47


def test_a_pod_has_time_to_commit_what_it_has_finished(spec: Document) -> None:
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        grace = group["template"]["spec"]["terminationGracePeriodSeconds"]
        assert grace >= RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S + 20


def test_every_pod_passes_podsecurity_restricted(spec: Document) -> None:
    for pod in pods(spec):
        assert breaches_of_restricted(pod["spec"]) == []
    # KubeRay puts the autoscaler into the head's pod, and this upon it.
    if spec["rayClusterSpec"]["enableInTreeAutoscaling"]:
        added = {"name": "autoscaler"} | spec["rayClusterSpec"]["autoscalerOptions"]
        assert breaches_of_restricted({**pods(spec)[1]["spec"], "containers": [added]}) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod.pop("securityContext"),
        lambda pod: pod["containers"][0].pop("securityContext"),
        lambda pod: pod["securityContext"].update(runAsUser=0),
        lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        lambda pod: pod["volumes"].append({"name": "cache", "hostPath": {"path": "/models"}}),
        lambda pod: pod.update(hostNetwork=True),
    ],
)
def test_a_breach_of_restricted_would_be_seen(plain: Document, change: Callable[[Any], None]) -> None:
    pod = copy.deepcopy(pods(plain["spec"])[2]["spec"])
    change(pod)
    assert breaches_of_restricted(pod)


def test_the_user_of_the_pods_is_that_of_the_image(spec: Document) -> None:
    [user] = re.findall(r"^USER (\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for pod in pods(spec):
        assert pod["spec"]["securityContext"]["runAsUser"] == int(user)
        assert pod["spec"]["securityContext"]["fsGroup"] == 100  # of volumes that are mounted


def test_nobody_empties_the_node_of_the_head_or_the_submitter_to_save_money(spec: Document) -> None:
    submitter, head, worker = pods(spec)
    assert submitter["metadata"]["annotations"] == head["metadata"]["annotations"] == STAYS
    assert "annotations" not in worker["metadata"]  # a worker has time to commit, and is replaced


def test_every_mount_has_its_volume_and_every_volume_a_mount(spec: Document) -> None:
    for pod in pods(spec):
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        [container] = pod["spec"]["containers"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} == volumes


def test_the_config_that_is_mounted_is_the_one_that_is_generated_from(build: list[Document]) -> None:
    config_map, job = one(build, "ConfigMap"), one(build, "RayJob")
    [volume] = pods(job["spec"])[1]["spec"]["volumes"]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    [mount] = pods(job["spec"])[1]["spec"]["containers"][0]["volumeMounts"]
    [name] = config_map["data"]
    assert f"jobs/generate.py {mount['mountPath']}/{name} " in job["spec"]["entrypoint"]


def test_the_entrypoint_would_run(build: list[Document], tmp_path: Path) -> None:
    (tmp_path / "build.yaml").write_text(one(build, "ConfigMap")["data"]["build.yaml"])
    spec = one(build, "RayJob")["spec"]
    path, overrides = entrypoint_of(spec["entrypoint"].replace("/etc/magpie", str(tmp_path)))
    config = load_config(path, overrides)
    assert config.engine.device == "cuda"
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        [container] = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == str(config.engine.tensor_parallel_size)


def test_weights_have_a_place_that_holds_them(build: list[Document]) -> None:
    """In bytes: 2 a parameter, and the volume is smaller than what the pod may write to the node's disk."""
    [container] = (worker := pods(one(build, "RayJob")["spec"])[2]["spec"])["containers"]
    [volume], [mount] = worker["volumes"], container["volumeMounts"]
    assert {"name": "HF_HOME", "value": mount["mountPath"]} in container["env"]
    if "persistentVolumeClaim" in volume:
        [claim] = documents(KUBERAY / "model-cache.yaml")
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
        return
    size = gibibytes(volume["emptyDir"]["sizeLimit"])
    billions = int(re.findall(r"name: \S+-(\d+)B-Instruct", one(build, "ConfigMap")["data"]["build.yaml"])[0])
    assert size * 2**30 > 2e9 * billions
    assert gibibytes(container["resources"]["requests"]["ephemeral-storage"]) >= size + 10


def gibibytes(amount: str) -> float:
    assert amount.endswith("Gi"), amount
    return float(amount.removesuffix("Gi"))


def test_its_runtime_environment_is_that_of_a_submitted_job(spec: Document) -> None:
    submitted = yaml.safe_load((ROOT / "jobs/runtime_env.yaml").read_text())
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": submitted["env_vars"]}


def test_head_and_workers_get_the_same_secrets_and_none_is_written_here(spec: Document) -> None:
    _, head, worker = (pod["spec"]["containers"][0] for pod in pods(spec))
    assert head["envFrom"] == worker["envFrom"] == [{"secretRef": {"name": "magpie", "optional": True}}]
    assert not re.search("TOKEN|SECRET|PASSWORD|_KEY", str([head.get("env"), worker["env"]]))


def test_the_images_are_the_ones_that_are_named_and_no_other(spec: Document) -> None:
    submitter, head, worker = (pod["spec"]["containers"][0]["image"] for pod in pods(spec))
    assert submitter == head == f"{worker}-head"
    assert worker.startswith("registry.example.com/ml/magpie-ray:")


def test_a_component_is_used_by_its_name_in_the_example() -> None:
    text = (KUBERAY / "example/once/kustomization.yaml").read_text()
    assert re.findall(r"# - \.\./\.\./components/([\w-]+)", text) == list(COMPONENTS)
    folders = {path.parent.name for path in (KUBERAY / "components").glob("*/kustomization.yaml")}
    assert folders == {*COMPONENTS, "schedule"}


def test_kueue_counts_workers_before_anything_starts(tmp_path: Path) -> None:
    job = one(kustomized(copied(tmp_path, ["kueue"]) / "once"), "RayJob")
    assert "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in cluster
    [group] = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]


def test_nothing_is_paid_for_until_the_job_asks(plain: Document) -> None:
    [group] = plain["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == 0


@pytest.mark.parametrize("cloud", CLOUDS)
def test_on_a_cloud_workers_are_on_spot_nodes_and_the_head_is_not(tmp_path: Path, cloud: str) -> None:
    spec = one(kustomized(copied(tmp_path, [cloud]) / "once"), "RayJob")["spec"]
    _, head, worker = (pod["spec"] for pod in pods(spec))
    spot = {
        "eks": {"karpenter.sh/capacity-type": "spot"},
        "gke": {"cloud.google.com/gke-spot": "true"},
        "aks": {"kubernetes.azure.com/scalesetpriority": "spot"},
    }[cloud]
    assert spot.items() <= worker["nodeSelector"].items()
    assert not spot.items() & head["nodeSelector"].items()
    assert all(pod["nodeSelector"]["kubernetes.io/arch"] == "amd64" for pod in (head, worker))


@needs_schemas
def test_the_job_of_steps_without_a_gpu_is_one_and_passes_podsecurity() -> None:
    [job] = documents(KUBERAY / "curate.yaml")
    check(job)
    pod = job["spec"]["template"]["spec"]
    assert breaches_of_restricted(pod) == []
    [container] = pod["containers"]
    head = yaml.safe_load((KUBERAY / "example/once/kustomization.yaml").read_text())["images"][1]
    assert container["image"].endswith(f"magpie-ray:{head['newTag']}")
    [mount], [volume] = container["volumeMounts"], pod["volumes"]
    assert {"name": "TMPDIR", "value": mount["mountPath"]} in container["env"]
    assert mount["name"] == volume["name"]
    assert gibibytes(container["resources"]["requests"]["ephemeral-storage"]) >= gibibytes(
        volume["emptyDir"]["sizeLimit"]
    )
