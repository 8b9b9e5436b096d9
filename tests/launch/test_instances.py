"""The table of instances in docs/kuberay.md: what it has workers request fits on the nodes it names.

A node keeps a part of itself back. The formulas are the clouds' own: EKS by the pods that a node may hold,
GKE and AKS as their pages on node sizes and reservations have them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import yaml

from tests.launch.files import ROOT
from tests.launch.manifests import KUBERAY, documents

# Of the memory of a machine, what its hypervisor and kernel take first: Karpenter's own guess.
OVERHEAD = 0.075
# For the node's own pods: network, storage, the GPU's device plugin, metrics.
OWN_CPUS, OWN_GIB = 0.5, 1.0
EVICTION_GIB = 100 / 1024


@dataclass(frozen=True, kw_only=True)
class Row:
    cloud: str
    instance: str
    four_gpus: bool
    vcpus: int
    gib: int
    gpus: int
    gpu_gb: int
    cpu: int
    memory: int
    workers: int


def rows() -> list[Row]:
    pattern = (
        r"^\| (EKS|GKE|AKS) ([^|]+?)(, four GPUs)? \| (\d+) \| (\d+) \| (\d) of (\d+) GB "
        r"\| `cpu: \"(\d+)\", memory: (\d+)Gi` \| (\d) \|$"
    )
    text = (ROOT / "docs/kuberay.md").read_text()
    found = []
    for cloud, instances, four, *numbers in re.findall(pattern, text, re.MULTILINE):
        names = ("vcpus", "gib", "gpus", "gpu_gb", "cpu", "memory", "workers")
        given = dict(zip(names, map(int, numbers), strict=True))
        found += [
            Row(cloud=cloud, instance=name, four_gpus=bool(four), **given) for name in instances.split(", ")
        ]
    return found


ROWS = rows()


def by_tiers(amount: float, tiers: list[tuple[float, float]]) -> float:
    """The sum of a share of each tier: (size, share), the last size is all the rest."""
    kept = 0.0
    for size, share in tiers:
        kept += min(amount, size) * share
        amount = max(0.0, amount - size)
    return kept


CPU_TIERS = [(1.0, 0.06), (1.0, 0.01), (2.0, 0.005), (float("inf"), 0.0025)]
MEMORY_TIERS = [(4.0, 0.25), (4.0, 0.20), (8.0, 0.10), (112.0, 0.06), (float("inf"), 0.02)]


def eks(row: Row, gib: float) -> tuple[float, float]:
    pods = 58 if row.vcpus <= 8 else 737
    return by_tiers(row.vcpus, CPU_TIERS), (255 + 11 * pods) / 1024


def gke(row: Row, gib: float) -> tuple[float, float]:
    return by_tiers(row.vcpus, CPU_TIERS), by_tiers(gib, MEMORY_TIERS)


def aks(row: Row, gib: float) -> tuple[float, float]:
    """From 8 cores on 100 millicores and 10 a core; 20 MB for each of the 250 pods that a node may hold."""
    return 0.1 + 0.01 * row.vcpus, min((20 * 250 + 50) * 1e6 / 2**30, 0.25 * gib)


RESERVED: dict[str, Callable[[Row, float], tuple[float, float]]] = {"EKS": eks, "GKE": gke, "AKS": aks}


def room(row: Row) -> tuple[float, float]:
    """CPUs and GiB of the node for pods of ours."""
    gib = row.gib * (1 - OVERHEAD)
    cpus_kept, gib_kept = RESERVED[row.cloud](row, gib)
    return row.vcpus - cpus_kept - OWN_CPUS, gib - gib_kept - EVICTION_GIB - OWN_GIB


def requests(four_gpus: bool) -> tuple[int, int]:
    """CPUs and GiB that the base, or the component four-gpus, has a worker request."""
    if four_gpus:
        [component] = documents(KUBERAY / "components/four-gpus/kustomization.yaml")
        resources = yaml.safe_load(component["patches"][0]["patch"])[0]["value"]
    else:
        [job] = documents(KUBERAY / "base/rayjob.yaml")
        [group] = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["memory"] == resources["requests"]["memory"]
    return int(resources["requests"]["cpu"]), int(resources["requests"]["memory"].removesuffix("Gi"))


def test_the_table_is_read_as_a_whole() -> None:
    lines = re.findall(r"^\| (?:EKS|GKE|AKS) .*$", (ROOT / "docs/kuberay.md").read_text(), re.MULTILINE)
    assert len(lines) >= 13
    assert len(ROWS) == len(lines) + 1  # one line has two instances


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.cloud} {row.instance}")
def test_the_requests_of_a_row_leave_the_node_its_room(row: Row) -> None:
    cpus, gib = room(row)
    assert row.workers * row.cpu <= cpus
    assert row.workers * row.memory <= gib
    assert row.workers * (4 if row.four_gpus else 1) == row.gpus


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.cloud} {row.instance}")
def test_the_requests_as_they_come_fit_every_node_that_is_not_excepted(row: Row) -> None:
    cpu, memory = requests(row.four_gpus)
    cpus, gib = room(row)
    fits = row.workers * cpu <= cpus and row.workers * memory <= gib
    assert fits == (row.gib > 16)


def test_the_text_has_the_requests_as_they_come() -> None:
    text = " ".join((ROOT / "docs/kuberay.md").read_text().split())
    assert "The base requests {} CPUs and {} GiB".format(*requests(False)) in text
    assert "`four-gpus` requests {} CPUs and {} GiB".format(*requests(True)) in text


def test_a_request_for_a_whole_node_would_be_seen() -> None:
    [row] = [row for row in ROWS if row.instance == "g6e.2xlarge"]
    cpus, _ = room(row)
    assert cpus < row.vcpus
