"""A worker's look at the output before its engine starts: does its node see the build, and may it write?

A folder that is not shared, a missing mount or a missing role would otherwise show after minutes of work.
"""

from magpie_ray.dataset.build_record import read_build
from magpie_ray.dataset.layout import BUILD_KEY, RECORDS_PREFIX
from magpie_ray.errors import CorruptBuildError, PreflightError, StorageError
from magpie_ray.storage.probe import new_key
from magpie_ray.worker.spec import WorkerSpec

# A short outage must not fail the start.
_RETRY_SECONDS = 60.0
_REMEDY = (
    "Every node must see the same output and write to it: mount the shared folder under the same path, give "
    "the node its role or credentials, or use an object store"
)


def check_output(spec: WorkerSpec, *, host: str, retry_seconds: float = _RETRY_SECONDS) -> None:
    """Raises PreflightError, which says what `host` looked for and saw, unless the worker can use the output.

    A spec without a fingerprint has no build: its rows are thrown away.
    """
    if not spec.fingerprint:
        return
    storage = spec.storage.retrying_for(retry_seconds)
    name = storage.display(BUILD_KEY)
    try:
        build = read_build(storage)
        seen = 0 if build else len(storage.list_objects(RECORDS_PREFIX.rstrip("/")))
    except (StorageError, CorruptBuildError) as exc:
        raise PreflightError(
            f"{host} can't read {name}, which the driver has written: {exc} {_REMEDY}"
        ) from exc
    if build is None:
        beside = f"{seen} other records" if seen else "nothing else of the build"
        raise PreflightError(
            f"{host} looked for {name}, which the driver has written, and found none; it sees {beside}. "
            f"{_REMEDY}"
        )
    if build.fingerprint != spec.fingerprint:
        raise PreflightError(
            f"{host} sees another build at {storage.url}: the fingerprint of {name} is "
            f"{build.fingerprint[:12]}…, that of this run {spec.fingerprint[:12]}…: is another folder or "
            f"volume mounted there? {_REMEDY}"
        )
    key = new_key()
    try:
        storage.create(key, host.encode())
        storage.delete(key)
    except StorageError as exc:
        raise PreflightError(
            f"{host} sees the build, but can't write to {storage.url}: {exc} {_REMEDY}"
        ) from exc
