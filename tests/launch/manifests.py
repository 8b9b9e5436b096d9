"""Kubernetes manifests as an API server with strict field validation would take them, without one.

Core kinds go by the schemas that kubernetes-validate brings; KubeRay's by the schemas of its CRDs, one file
a kind (ray.io_rayjobs_v1.json and so on), in the folder that MAGPIE_RAY_K8S_SCHEMAS names.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.launch.files import ROOT

FOLDER = os.environ.get("MAGPIE_RAY_K8S_SCHEMAS")
MANIFESTS = sorted((ROOT / "jobs/kuberay").glob("*.yaml"))
VERSION = "1.33"


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def check(document: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError: an unknown field, a wrong type, one that is missing."""
    if document["apiVersion"].startswith("ray.io/"):
        jsonschema.validate(document, _ray_schema(document["kind"].lower()))
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


@functools.cache
def _ray_schema(kind: str) -> dict[str, Any]:
    assert FOLDER is not None
    schema: dict[str, Any] = json.loads((Path(FOLDER) / f"ray.io_{kind}s_v1.json").read_text())
    _make_strict(schema)
    schema["properties"]["metadata"] = {
        "additionalProperties": False,
        "properties": {"name": {"type": "string"}, "labels": {"additionalProperties": {"type": "string"}}},
        "required": ["name"],
    }
    return schema


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
