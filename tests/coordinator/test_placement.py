"""What an actor takes of a cluster, and how many actors it holds."""

from dataclasses import replace

import pytest

from magpie_ray.config.loading import load_config
from magpie_ray.config.schema import Config
from magpie_ray.coordinator.placement import ClusterResources, choose_num_actors, place
from magpie_ray.errors import ConfigError, PreflightError

CPUS_ONLY = ClusterResources(node_cpus=(4.0, 2.0), node_gpus=(0.0, 0.0))
TWO_NODES_OF_EIGHT = ClusterResources(node_cpus=(16.0, 16.0), node_gpus=(8.0, 8.0))


def config(*overrides: str) -> Config:
    return load_config(None, ["num_rows=100", *overrides])


def actors(settings: Config, resources: ClusterResources) -> int:
    return choose_num_actors(settings, place(settings, resources), resources)


def test_the_device_is_cuda_where_the_cluster_has_or_can_have_gpus() -> None:
    can_have = ClusterResources(node_cpus=(4.0,), node_gpus=(0.0,), limit_gpus=8.0)
    assert place(config(), CPUS_ONLY).device == "cpu"
    assert place(config(), TWO_NODES_OF_EIGHT).device == "cuda"
    assert place(config(), can_have).device == "cuda"
    assert place(config("engine.device=cpu"), TWO_NODES_OF_EIGHT).device == "cpu"


def test_an_actor_on_cpu_takes_one_cpu() -> None:
    placement = place(config(), CPUS_ONLY)
    assert (placement.num_cpus, placement.num_gpus, placement.bundles) == (1, 0, ())
    assert str(placement) == "1 CPU"
    assert actors(config(), CPUS_ONLY) == 6


def test_an_engine_of_one_gpu_needs_no_placement_group() -> None:
    placement = place(config(), TWO_NODES_OF_EIGHT)
    assert (placement.num_cpus, placement.num_gpus, placement.bundles) == (1, 1, ())
    assert placement.distributed_executor_backend is None
    assert str(placement) == "1 CPU and 1 GPU"
    assert actors(config(), TWO_NODES_OF_EIGHT) == 16


def test_an_engine_over_gpus_of_one_node_gets_one_bundle_there() -> None:
    settings = config("engine.tensor_parallel_size=4")
    placement = place(settings, TWO_NODES_OF_EIGHT)
    assert [dict(bundle) for bundle in placement.bundles] == [{"GPU": 4.0, "CPU": 1.0}]
    assert (placement.strategy, placement.distributed_executor_backend) == ("STRICT_PACK", "mp")
    assert placement.num_gpus == 4
    assert "placement group" in str(placement)
    assert actors(settings, TWO_NODES_OF_EIGHT) == 4


def test_gpus_left_over_on_each_node_do_not_add_up_to_an_engine() -> None:
    assert actors(config("engine.tensor_parallel_size=3"), TWO_NODES_OF_EIGHT) == 4


def test_an_engine_larger_than_a_node_spreads_over_nodes_through_ray() -> None:
    settings = config("engine.tensor_parallel_size=8", "engine.pipeline_parallel_size=2")
    placement = place(settings, TWO_NODES_OF_EIGHT)
    assert len(placement.bundles) == 16
    assert {dict(bundle)["GPU"] for bundle in placement.bundles} == {1.0}
    assert (placement.strategy, placement.distributed_executor_backend) == ("PACK", "ray")
    assert placement.num_gpus == 0
    assert actors(settings, TWO_NODES_OF_EIGHT) == 1


def test_what_an_autoscaler_may_bring_counts() -> None:
    empty = ClusterResources(node_cpus=(2.0,), node_gpus=(0.0,), limit_cpus=64.0, limit_gpus=16.0)
    assert actors(config(), empty) == 16
    assert actors(config("engine.tensor_parallel_size=4"), empty) == 4
    assert actors(config("engine.device=cpu"), empty) == 64


def test_a_number_of_actors_that_was_asked_for_is_taken() -> None:
    assert actors(config("cluster.num_actors=3"), TWO_NODES_OF_EIGHT) == 3
    assert actors(config("cluster.num_actors=300"), TWO_NODES_OF_EIGHT) == 300


def test_an_engine_that_never_fits_is_refused_with_what_there_is_and_what_to_do() -> None:
    with pytest.raises(PreflightError, match=r"needs 32 GPUs.*has 16 GPUs.*tensor_parallel_size"):
        actors(config("engine.tensor_parallel_size=32"), TWO_NODES_OF_EIGHT)
    with pytest.raises(PreflightError, match=r"needs 1 GPU .*has 0 GPUs.*engine\.device: cpu"):
        actors(config("engine.device=cuda"), CPUS_ONLY)


def test_a_number_asked_for_is_believed_where_nodes_may_still_come() -> None:
    empty = replace(CPUS_ONLY, may_grow=True)
    assert actors(config("engine.device=cuda", "cluster.num_actors=5"), empty) == 5
    with pytest.raises(PreflightError, match=r"where an autoscaler brings nodes, set cluster\.num_actors"):
        actors(config("engine.device=cuda"), empty)
    with pytest.raises(PreflightError, match=r"needs 1 GPU "):
        actors(config("engine.device=cuda", "cluster.num_actors=5"), CPUS_ONLY)


def test_a_cluster_without_cpus_is_not_told_to_use_cpus() -> None:
    nothing = ClusterResources(node_cpus=(0.0,), node_gpus=(0.0,))
    with pytest.raises(PreflightError, match=r"needs 1 CPU .*has 0 CPUs") as caught:
        actors(config(), nothing)
    assert "engine.device: cpu" not in str(caught.value)


def test_an_engine_of_several_devices_needs_gpus() -> None:
    settings = config("engine.tensor_parallel_size=2")
    place(settings, TWO_NODES_OF_EIGHT)
    with pytest.raises(ConfigError, match="tensor_parallel_size"):
        place(settings, CPUS_ONLY)
