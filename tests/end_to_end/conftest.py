"""What the end-to-end tests share: one Ray cluster, one S3 server and a published model, had once."""

from collections.abc import Iterator

import pytest

from tests.end_to_end.cluster import RayCluster, running_cluster
from tests.support.minilm import minilm as minilm
from tests.support.s3_server import S3Server
from tests.support.smollm2 import smollm2 as smollm2


@pytest.fixture(scope="session")
def ray_cluster(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Four CPUs and four GPUs by name; its actors can reach the S3 server."""
    home = tmp_path_factory.mktemp("ray")
    with running_cluster(s3_server.env, num_cpus=4, num_gpus=4, home=home) as cluster:
        yield cluster
