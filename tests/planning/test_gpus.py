"""The table of GPUs."""

import pytest

from magpie_ray.errors import ConfigError
from magpie_ray.planning.gpus import GPUS, find_gpu


@pytest.mark.parametrize("name", ["H100-80GB", "h100-80gb", "h100 80gb", "H10080GB"])
def test_a_gpu_is_found_however_it_is_spelled(name: str) -> None:
    assert find_gpu(name).name == "H100-80GB"


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"got 'H1000'; did you mean H100-\S+\? Known are A10G, .*RTX4090"):
        find_gpu("H1000")
    with pytest.raises(ConfigError, match=r"'\?'; known are A10G"):
        find_gpu("?")


def test_a_name_that_several_have_in_common_is_answered_with_these() -> None:
    with pytest.raises(ConfigError, match=r"got 'h100', must be one of H100-80GB, H100-NVL, H100-PCIe$"):
        find_gpu("h100")
    with pytest.raises(ConfigError, match=r"got 'A100', must be one of A100-40GB, A100-80GB$"):
        find_gpu("A100")


def test_the_figures_are_in_bytes_and_flops() -> None:
    for gpu in GPUS.values():
        assert 20e9 < gpu.memory < 300e9
        assert 200e9 < gpu.bandwidth < 10e12
        # All of them can do more arithmetic on a byte than reading it takes.
        assert 50 < gpu.arithmetic / gpu.bandwidth < 1000


def test_large_cards_get_vllm_s_large_batch() -> None:
    assert find_gpu("H200").max_num_seqs == find_gpu("H100-80GB").max_num_seqs == 1024
    assert find_gpu("A100-80GB").max_num_seqs == find_gpu("L40S").max_num_seqs == 256
