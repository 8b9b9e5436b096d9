"""The Ray cluster: which one, what it has, whether it is still there."""

import contextlib
import logging
import math
import os
import socket
import time
from collections.abc import Iterator

import ray
from ray._private.state import state
from ray._private.utils import read_ray_address
from ray.exceptions import RayError

from magpie_ray.config import Config
from magpie_ray.errors import ClusterLostError, PreflightError
from magpie_ray.placement import ClusterResources

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 5.0
# Ray waits a minute for a head that restarts, and then ends the driver without a word of ours.
_HEAD_GONE_SECONDS = 40.0
_HEAD_WARNING_SECONDS = 10.0
_HEAD_CHECK_SECONDS = 2.0


class Head:
    """Whether the cluster's head still answers.

    Ray calls about the cluster wait for a head that is gone, so they are made only while it `answers`.
    """

    def __init__(self) -> None:
        self._address = str(ray.get_runtime_context().gcs_address)
        self._checked = self._answered = time.monotonic()
        self._warned = -math.inf

    def __str__(self) -> str:
        return self._address

    def answers(self) -> bool:
        """Asks, by a TCP connection."""
        self._checked = time.monotonic()
        if answers(self._address):
            self._answered = self._checked
        return self._answered == self._checked

    def check_now_and_then(self) -> None:
        """Asks when that was some time ago. ClusterLostError when nobody has answered for 40 s."""
        if time.monotonic() - self._checked < _HEAD_CHECK_SECONDS or self.answers():
            return
        silent = self._checked - self._answered
        if self._checked - self._warned > _HEAD_WARNING_SECONDS:
            self._warned = self._checked
            log.warning("the head of the Ray cluster at %s has not answered for %.0f s", self, silent)
        if silent > _HEAD_GONE_SECONDS:
            raise ClusterLostError(
                f"the Ray cluster at {self} is gone: its head has not answered for {silent:.0f} s. What is "
                "committed is kept: the same command goes on, on this cluster once it is back or on another"
            )


@contextlib.contextmanager
def ray_session(config: Config) -> Iterator[bool]:
    """Connect to a cluster (cluster.address, RAY_ADDRESS, one on this machine) or start a local one.

    Yields whether it is one of our own, which gets no further nodes.
    """
    if ray.is_initialized():
        yield False
        return
    address = config.cluster.address or os.environ.get("RAY_ADDRESS") or _cluster_on_this_machine()
    if address and not answers(address):
        raise _no_cluster(address, "nothing answers there")
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.WARNING,
            log_to_driver=False,
            **({} if address else {"include_dashboard": False}),
        )
    except (ConnectionError, RuntimeError, ValueError, RayError) as exc:
        raise _no_cluster(address or "local", str(exc)) from exc
    try:
        yield address is None
    except ClusterLostError:
        raise  # there is nothing to leave, and trying to takes longer than Ray lets this process live
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _no_cluster(address: str, why: str) -> PreflightError:
    return PreflightError(
        f"no Ray cluster at {address}: {why}. Start one with `ray start --head`, or set RAY_ADDRESS or "
        "cluster.address; without both, and none running here, a local one is started"
    )


def _cluster_on_this_machine() -> str | None:
    """The cluster that `ray start` began here, unless it is dead: Ray would wait for it for minutes."""
    address = read_ray_address()
    if address and not answers(address):
        log.warning("the Ray cluster that was started here (%s) is gone: starting a local one", address)
        return None
    return address or None


def answers(address: str) -> bool:
    """Whether something listens at host:port or ray://host:port; other forms are Ray's to look up."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return True
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def cluster_resources(*, may_grow: bool) -> ClusterResources:
    """What the cluster has now, and what its autoscaler may bring where it tells."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # No public call tells what an autoscaler may add; Ray's own libraries ask here.
    limits = state.get_max_resources_from_cluster_config() or {}
    return ClusterResources(
        node_cpus=tuple(float(node.get("CPU", 0)) for node in nodes),
        node_gpus=tuple(float(node.get("GPU", 0)) for node in nodes),
        limit_cpus=float(limits.get("CPU", 0)),
        limit_gpus=float(limits.get("GPU", 0)),
        may_grow=may_grow,
    )


def alive_nodes() -> set[str]:
    """Ids of the nodes that are up."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def draining_nodes() -> set[str]:
    """Ids of the nodes that are about to leave: spot notices that reached Ray, scale-downs."""
    # No public call tells; Ray Serve asks the same source.
    return set(state.get_draining_nodes())
