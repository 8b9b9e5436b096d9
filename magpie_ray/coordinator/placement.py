"""Decisions about a cluster: which device, what one actor takes, how many actors.

Plain numbers in, frozen values out; the driver reads the numbers and asks Ray for what comes out.
"""

import logging
from dataclasses import dataclass
from typing import Literal

from magpie_ray.config.loading import JobConfig
from magpie_ray.errors import ConfigError, PreflightError

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterResources:
    """CPUs and GPUs of each node that is up, and of the whole cluster at its largest (0: unknown).

    may_grow: whether nodes may come that the cluster does not announce.
    """

    node_cpus: tuple[float, ...]
    node_gpus: tuple[float, ...]
    limit_cpus: float = 0.0
    limit_gpus: float = 0.0
    may_grow: bool = False

    @property
    def most_gpus(self) -> float:
        return max(sum(self.node_gpus), self.limit_gpus)

    @property
    def most_cpus(self) -> float:
        return max(sum(self.node_cpus), self.limit_cpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """What one actor takes. With bundles it runs in a placement group of its own, in bundle 0.

    distributed_executor_backend: how vLLM spreads over several GPUs: mp within a node, ray across nodes.
    """

    device: str
    num_cpus: float
    num_gpus: float
    bundles: tuple[tuple[tuple[str, float], ...], ...] = ()
    strategy: Literal["STRICT_PACK", "PACK"] = "STRICT_PACK"
    distributed_executor_backend: str | None = None

    @property
    def all_gpus(self) -> float:
        """Of the actor and of its placement group together."""
        grouped = sum(amount for bundle in self.bundles for kind, amount in bundle if kind == "GPU")
        return grouped or self.num_gpus

    def fits(self, *, cpus: float, gpus: float) -> bool:
        """Whether a node of that size can hold an actor, or one bundle of an actor over several nodes."""
        if self.strategy == "PACK" and self.bundles:
            need = dict(self.bundles[0])
            return cpus >= need.get("CPU", 0.0) and gpus >= need.get("GPU", 0.0)
        return cpus >= self.num_cpus and gpus >= self.all_gpus

    def __str__(self) -> str:
        if self.bundles:
            return f"a placement group of {[dict(b) for b in self.bundles]} ({self.strategy})"
        return f"{self.num_cpus:g} CPU" + (f" and {self.num_gpus:g} GPU" if self.num_gpus else "")


def place(config: JobConfig, resources: ClusterResources) -> Placement:
    """What one actor takes: on the configured device, or on GPUs where the cluster has, or can have, any.

    ConfigError for an engine over several devices on CPUs.
    """
    world = config.engine.tensor_parallel_size * config.engine.pipeline_parallel_size
    device = config.engine.device
    if device == "auto":
        device = "cuda" if resources.most_gpus > 0 else "cpu"
        if device == "cpu":
            log.warning("the cluster has no GPU: engines run on CPUs (engine.device: auto)")
    if device == "cpu":
        if world > 1:
            raise ConfigError(
                "engine.tensor_parallel_size and engine.pipeline_parallel_size must be 1 with engine.device: "
                "cpu"
            )
        return Placement(device=device, num_cpus=1, num_gpus=0)
    if world == 1:
        return Placement(device=device, num_cpus=1, num_gpus=1)
    largest = max(resources.node_gpus, default=0.0)
    if world <= largest or largest == 0:
        bundle = (("GPU", float(world)), ("CPU", 1.0))
        return Placement(
            device=device, num_cpus=1, num_gpus=world, bundles=(bundle,), distributed_executor_backend="mp"
        )
    # The actor itself holds no GPU: vLLM places one worker in each bundle of the actor's group.
    return Placement(
        device=device,
        num_cpus=0,
        num_gpus=0,
        bundles=((("GPU", 1.0), ("CPU", 1.0)),) * world,
        strategy="PACK",
        distributed_executor_backend="ray",
    )


def choose_num_actors(config: JobConfig, placement: Placement, resources: ClusterResources) -> int:
    """As configured, or as many as the cluster can hold. PreflightError when it can't hold one.

    Most autoscalers don't say which nodes they may bring: a configured number is believed where the cluster
    may grow, and the job then waits for nodes up to cluster.start_timeout_seconds.
    """
    configured = config.cluster.num_actors
    if configured != "auto" and resources.may_grow:
        return configured
    most = most_actors(placement, resources)
    return most if configured == "auto" else configured


def most_actors(placement: Placement, resources: ClusterResources) -> int:
    """How many actors the cluster can hold. PreflightError when it can't hold one."""
    if placement.device == "cpu":
        kind, each = "CPU", placement.num_cpus
        nodes, limit, has = resources.node_cpus, resources.limit_cpus, resources.most_cpus
        advice = "add CPUs to its nodes"
    else:
        kind, each = "GPU", placement.all_gpus
        nodes, limit, has = resources.node_gpus, resources.limit_gpus, resources.most_gpus
        advice = "add nodes, lower engine.tensor_parallel_size, or set engine.device: cpu for a small model"
    spread = placement.strategy == "PACK"  # one actor over several nodes
    fits = sum(nodes) // each if spread else sum(node // each for node in nodes)
    fits = int(max(fits, limit // each))
    if fits < 1:
        grows = ", or, where an autoscaler brings nodes, set cluster.num_actors" if resources.may_grow else ""
        raise PreflightError(
            f"one actor needs {_units(each, kind)} (engine.device {placement.device}, tensor_parallel_size x "
            f"pipeline_parallel_size), and the cluster has {_units(has, kind)}: {advice}{grows}"
        )
    return fits


def _units(number: float, kind: str) -> str:
    return f"{number:g} {kind}" + ("" if number == 1 else "s")
