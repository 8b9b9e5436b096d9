"""Shared by all tests: a quiet, offline environment and the servers that several tests use."""

import os

# Before anything that reads them is imported.
os.environ.update(
    {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)

from tests.s3_server import s3_server  # noqa: F401
