"""The cluster as it was seconds ago: its nodes, their resources, and whether its head still answers.

A question to a head that is gone or frozen blocks, until Ray ends this process a minute later. Invariants: a
thread of its own asks the questions; the job reads the last answer and its age, and never blocks.
"""

import logging
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import ray
from ray._private.state import state

from magpie_ray.coordinator.placement import ClusterResources
from magpie_ray.driver.connect import answers
from magpie_ray.errors import ClusterLostError, PreflightError
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.utils.background import within

log = logging.getLogger(__name__)

# Ray itself ends a driver whose head has been silent for a minute.
GONE_SECONDS = 40.0
# A cluster that was started just now is slow to answer.
FIRST_SECONDS = 60.0
_EVERY_SECONDS = 3.0
_SILENT_SECONDS = 8.0
_WARNING_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterView:
    """One answer of the head. alive: ids of nodes; leaving: ids of those that are about to leave.

    staying: ids of the other nodes, in the order of `resources`.
    """

    alive: frozenset[str]
    leaving: frozenset[str]
    resources: ClusterResources
    free: str
    staying: tuple[str, ...] = ()

    @classmethod
    def now(cls, *, may_grow: bool) -> "ClusterView":
        """Asks the head, and blocks until it answers."""
        # No public call lists draining nodes or an autoscaler's limits; Ray's own libraries ask here.
        leaving = frozenset(state.get_draining_nodes())
        limits = state.get_max_resources_from_cluster_config() or {}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        staying = {node["NodeID"]: node["Resources"] for node in nodes if node["NodeID"] not in leaving}
        return cls(
            alive=frozenset(node["NodeID"] for node in nodes),
            leaving=leaving,
            resources=ClusterResources(
                node_cpus=tuple(float(node.get("CPU", 0)) for node in staying.values()),
                node_gpus=tuple(float(node.get("GPU", 0)) for node in staying.values()),
                limit_cpus=float(limits.get("CPU", 0)),
                limit_gpus=float(limits.get("GPU", 0)),
                may_grow=may_grow,
            ),
            staying=tuple(staying),
            free=f"{ray.cluster_resources()}, of which {ray.available_resources()} are free",
        )


class ClusterWatch:
    """A context that keeps `view` up to date.

    may_grow: whether nodes may come; none come to a local cluster that the run itself started. gone_seconds:
    how long the head may be silent before the cluster counts as gone. Ray waits a minute for a head that
    restarts, and then ends the driver without a message. ask: one question to the head, which may block.
    clock: seconds that this process was awake; no head answers a suspended driver.

    first_seconds: for the first answer. PreflightError when it does not come.
    """

    def __init__(
        self,
        *,
        may_grow: bool,
        gone_seconds: float = GONE_SECONDS,
        first_seconds: float = FIRST_SECONDS,
        address: str | None = None,
        ask: Callable[[], ClusterView] | None = None,
        clock: Callable[[], float] = awake_seconds,
    ) -> None:
        self._may_grow, self._gone_seconds, self._clock = may_grow, gone_seconds, clock
        self._address = address or str(ray.get_runtime_context().gcs_address)
        self._ask = ask or partial(ClusterView.now, may_grow=may_grow)
        try:
            self.view = within(first_seconds, self._ask)
        except TimeoutError as exc:
            raise PreflightError(
                f"the Ray cluster at {self} takes connections, but its head has not answered for "
                f"{first_seconds:.0f} s: restart it, or name another one in cluster.address or RAY_ADDRESS"
            ) from exc
        self._answered = clock()
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
            self.look()

    def look(self) -> None:
        """Ask the head, and block until it answers. The watch's own thread does so every few seconds."""
        try:
            self.view = self._ask()
        except Exception as exc:  # noqa: BLE001 - any error means that the head did not answer
            log.debug("the head of the cluster gave no answer: %s", exc)
        else:
            self._answered = self._clock()

    def reachable(self) -> bool:
        """Whether the head would answer now, as far as can be known without asking it anything."""
        now = self._clock()
        if now - self._answered > _SILENT_SECONDS or now - self._refused < _SILENT_SECONDS:
            return False
        if not answers(self._address):
            self.note_silence()
            return False
        return True

    def note_silence(self) -> None:
        """A question of somebody else's was not answered: for a while nobody asks anything."""
        self._refused = self._clock()

    def check(self) -> None:
        """ClusterLostError when the head is silent for `gone_seconds`, or one without nodes gets none."""
        now = self._clock()
        silent = now - self._answered
        if silent < _SILENT_SECONDS:
            if not (self._may_grow or self.view.alive):
                raise ClusterLostError(
                    "the local Ray cluster that this run started has lost its only node (its raylet, or an "
                    "agent of the raylet, died or hangs), and no other node can come. Committed files are "
                    "kept: the same command starts a new cluster and resumes the build"
                )
            return
        if now - self._warned > _WARNING_SECONDS:
            self._warned = now
            log.warning("the head of the Ray cluster at %s has not answered for %.0f s", self, silent)
        if silent > self._gone_seconds:
            raise ClusterLostError(
                f"the Ray cluster at {self} is gone: its head has not answered for {silent:.0f} s. Committed "
                "files are kept: the same command resumes the build, on this cluster once it is back or on "
                "another"
            )
