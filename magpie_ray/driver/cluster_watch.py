"""The cluster as it was seconds ago: its nodes, their resources, and whether its head still answers.

A question to a head that is gone or frozen blocks, until Ray ends this process a minute later. Invariants: a
thread of its own asks the questions; the job reads the last answer and its age, and never blocks.
"""

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import Self

import ray
from ray._private.state import state

from magpie_ray.coordinator.placement import ClusterResources
from magpie_ray.driver.connect import answers
from magpie_ray.errors import ClusterLostError

log = logging.getLogger(__name__)

_EVERY_SECONDS = 3.0
_SILENT_SECONDS = 8.0
_WARNING_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterView:
    """One answer of the head. alive: ids of nodes; leaving: ids of those that are about to leave."""

    alive: frozenset[str]
    leaving: frozenset[str]
    resources: ClusterResources
    free: str

    @classmethod
    def now(cls, *, may_grow: bool) -> "ClusterView":
        """Asks the head, and blocks until it answers."""
        # No public call lists draining nodes or an autoscaler's limits; Ray's own libraries ask here.
        leaving = frozenset(state.get_draining_nodes())
        limits = state.get_max_resources_from_cluster_config() or {}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        staying = [node["Resources"] for node in nodes if node["NodeID"] not in leaving]
        return cls(
            alive=frozenset(node["NodeID"] for node in nodes),
            leaving=leaving,
            resources=ClusterResources(
                node_cpus=tuple(float(node.get("CPU", 0)) for node in staying),
                node_gpus=tuple(float(node.get("GPU", 0)) for node in staying),
                limit_cpus=float(limits.get("CPU", 0)),
                limit_gpus=float(limits.get("GPU", 0)),
                may_grow=may_grow,
            ),
            free=f"{ray.cluster_resources()}, of which {ray.available_resources()} are free",
        )


class ClusterWatch:
    """A context that keeps `view` up to date.

    may_grow: whether nodes may come. gone_seconds: how long the head may be silent before the cluster counts
    as gone. Ray waits a minute for a head that restarts, and then ends the driver without a message.
    """

    def __init__(self, *, may_grow: bool, gone_seconds: float = 40.0) -> None:
        self._may_grow = may_grow
        self._gone_seconds = gone_seconds
        self._address = str(ray.get_runtime_context().gcs_address)
        self.view = ClusterView.now(may_grow=may_grow)
        self._answered = time.monotonic()
        self._refused = self._warned = -math.inf
        self._over = threading.Event()

    def __str__(self) -> str:
        return self._address

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="cluster-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_SECONDS):
            try:
                self.view = ClusterView.now(may_grow=self._may_grow)
            except Exception as exc:  # noqa: BLE001 - any error means that the head did not answer
                log.debug("the head of the cluster gave no answer: %s", exc)
            else:
                self._answered = time.monotonic()

    def reachable(self) -> bool:
        """Whether the head would answer now, as far as can be known without asking it anything."""
        now = time.monotonic()
        if now - self._answered > _SILENT_SECONDS or now - self._refused < _SILENT_SECONDS:
            return False
        if not answers(self._address):
            self._refused = time.monotonic()
            return False
        return True

    def check(self) -> None:
        """ClusterLostError when the head has been silent for `gone_seconds`."""
        silent = time.monotonic() - self._answered
        if silent < _SILENT_SECONDS:
            return
        if time.monotonic() - self._warned > _WARNING_SECONDS:
            self._warned = time.monotonic()
            log.warning("the head of the Ray cluster at %s has not answered for %.0f s", self, silent)
        if silent > self._gone_seconds:
            raise ClusterLostError(
                f"the Ray cluster at {self} is gone: its head has not answered for {silent:.0f} s. Committed "
                "files are kept: the same command resumes the build, on this cluster once it is back or on "
                "another"
            )
