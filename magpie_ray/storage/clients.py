"""The clients of fsspec, set up so that every request ends and is made once.

Invariants: a request that hangs ends by itself within about a minute without a byte. A client does not retry,
because storage.storage.Storage does, and knows by when it must be done. No client keeps listings: another
process writes there, too.
"""

import functools
import os
from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.dircache import DirCache

_CONNECT_SECONDS = 10
_READ_SECONDS = 60


def connect(protocol: str, url: str, options: Mapping[str, object]) -> tuple[Any, str]:
    """The file system that opens the URL, and the path of the URL on it. options: output.storage_options."""
    settings = _SETTINGS.get(protocol, dict[str, Any])() | dict(options)
    if protocol in ("s3", "s3a"):
        settings["config_kwargs"] = _s3_config() | dict(settings.get("config_kwargs") or {})
    fs, root = fresh_file_system(url, settings)
    _make_each_request_once(fs)
    return fs, root


def fresh_file_system(url: str, settings: Mapping[str, object]) -> tuple[Any, str]:
    """An instance of its own, which keeps no listings, and the path of the URL on it."""
    fs, root = fsspec.url_to_fs(url, skip_instance_cache=True, **settings)
    # Not as an argument: some clients, such as sftp's, hand all arguments on to a library that knows none.
    if isinstance(listings := getattr(fs, "dircache", None), DirCache):
        listings.use_listings_cache = False
    return fs, str(root)


def _s3_config() -> dict[str, Any]:
    return {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
    }


def _gcs() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    # gcsfs otherwise asks another service, by gRPC, of what kind the bucket is: for a minute where that
    # service can't be reached. Read when gcsfs is imported.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    # By default gcsfs waits for ever.
    return {"requests_timeout": ClientTimeout(sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS)}


_SETTINGS = {"gs": _gcs, "gcs": _gcs}


def _make_each_request_once(fs: Any) -> None:
    """Retries of the clients that no setting turns off: s3fs, gcsfs, azure-storage-blob."""
    if hasattr(fs, "retries"):
        fs.retries = 1
    if request := getattr(getattr(type(fs), "_request", None), "__wrapped__", None):
        fs._request = functools.partial(request, fs)
    if azure := getattr(getattr(fs, "service_client", None), "_config", None):
        azure.retry_policy.total_retries = 0
