"""Shared by all tests: a quiet, offline environment and the servers that several tests use."""

import os

import hypothesis
import pytest

# Before anything that reads them is imported.
os.environ.update(
    {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # as storage.clients sets it
    }
)

from tests.support.azure_server import azure_server as azure_server
from tests.support.gcs_server import gcs_server as gcs_server
from tests.support.s3_server import s3_server as s3_server

# The same examples everywhere, however busy the machine.
hypothesis.settings.register_profile("steady", derandomize=True, deadline=None)
hypothesis.settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the server of a store can be left out with `-m "not server"`."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        servers = fixtures & {"s3_server", "s3", "proxy", "azure_server", "gcs_server", "ftp_server"}
        if servers or any(f"[{name}" in item.name for name in ("s3", "azure", "gcs")):
            item.add_marker(pytest.mark.server)
