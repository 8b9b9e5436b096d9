"""Kubernetes manifests as an API server with strict field validation would take them, without one.

kustomize, inside kubectl, puts jobs/kuberay together. Core kinds go by the schemas that kubernetes-validate
brings. KubeRay's go by the schemas of its CRDs in the folder that MAGPIE_RAY_K8S_SCHEMAS names: one file a
kind, ray.io_rayjobs_v1.json and so on.
"""

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.launch.files import ROOT

FOLDER = os.environ.get("MAGPIE_RAY_K8S_SCHEMAS")
KUBERAY = ROOT / "jobs/kuberay"
VERSION = "1.33"
COMPONENTS = ("eks", "gke", "aks", "four-gpus", "model-cache", "kueue")  # in the order of their use
needs_schemas = pytest.mark.skipif(not FOLDER, reason="MAGPIE_RAY_K8S_SCHEMAS names no folder of schemas")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")

Document = dict[str, Any]


def documents(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text()))


def copied(folder: Path, components: Sequence[str] = (), config: str = "qwen2.5-7b") -> Path:
    """jobs/kuberay in the folder, with a copy of its example as docs/kuberay.md has one make it: `mine`."""
    shutil.copytree(KUBERAY, folder / "kuberay", dirs_exist_ok=True)
    mine = folder / "kuberay/mine"
    shutil.copytree(KUBERAY / "example", mine)
    shutil.copy(ROOT / f"jobs/configs/{config}.yaml", mine / "once/build.yaml")
    kustomization = mine / "once/kustomization.yaml"
    text = kustomization.read_text()
    for name in components:
        line = f"  # - ../../components/{name}"
        assert line in text, line
        text = text.replace(line, f"  - ../../components/{name}")
    kustomization.write_text(text)
    return mine


def kustomized(folder: Path) -> list[Document]:
    """What `kubectl apply --kustomize` would send."""
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def one(found: Sequence[Document], kind: str) -> Document:
    [document] = [document for document in found if document["kind"] == kind]
    return document


def pods(spec: Document) -> list[Document]:
    """The pods of a RayJob's spec, with their metadata: submitter, head, workers."""
    cluster = spec["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [spec["submitterPodTemplate"], *(group["template"] for group in groups)]


def check(document: Document) -> None:
    """Raises jsonschema.ValidationError: an unknown field, a wrong type, one that is missing."""
    if document["apiVersion"].startswith("ray.io/"):
        _ray_validator(document["kind"].lower()).validate(document)
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


@functools.cache
def _ray_validator(kind: str) -> jsonschema.Draft202012Validator:
    """Made once: to check such a schema takes seconds."""
    assert FOLDER is not None
    schema: Document = json.loads((Path(FOLDER) / f"ray.io_{kind}s_v1.json").read_text())
    _make_strict(schema)
    schema["properties"]["metadata"] = {
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string"},
            "namespace": {"type": "string"},
            "labels": {"additionalProperties": {"type": "string"}},
        },
        "required": ["name"],
    }
    return jsonschema.Draft202012Validator(schema)


def _make_strict(node: object) -> None:
    """As the server does it: unknown fields are errors, and what has a default may be left out."""
    if isinstance(node, list):
        for item in node:
            _make_strict(item)
    if not isinstance(node, dict):
        return
    properties = node.get("properties")
    if isinstance(properties, dict):
        if "additionalProperties" not in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node["additionalProperties"] = False
        given = {name for name, below in properties.items() if "default" in below}
        node["required"] = [name for name in node.get("required", ()) if name not in given]
    for name, below in node.items():
        if name not in ("anyOf", "oneOf"):  # partial by design: the whole is beside them
            _make_strict(below)


def breaches_of_restricted(pod: Document) -> list[str]:
    """What PodSecurity's level `restricted` refuses in a pod's spec, as of Kubernetes 1.33."""
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"}
    volumes |= {"projected", "secret"}
    found = [f"{name} is set" for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    for volume in pod.get("volumes", ()):
        found += [f"volume {volume['name']}: {kind}" for kind in set(volume) - {"name"} - volumes]
    for container in [*pod.get("initContainers", ()), *pod["containers"]]:
        own = container.get("securityContext", {})
        both = {**pod.get("securityContext", {}), **own}
        capabilities = own.get("capabilities", {})
        rules = {
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities": capabilities.get("drop") == ["ALL"]
            and set(capabilities.get("add", ())) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any("hostPort" in port for port in container.get("ports", ())),
        }
        found += [f"container {container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return found
