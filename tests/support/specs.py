"""Worker specs of a config, without a run."""

from magpie_ray.config.loading import JobConfig
from magpie_ray.dataset import build_record
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.storage.storage import Storage
from magpie_ray.worker.spec import WorkerSpec


def worker_spec(config: JobConfig, *, storage: Storage | None = None) -> WorkerSpec:
    """Of a build whose output nobody has opened."""
    build_spec = resolve_build(config)
    storage = storage or Storage(config.output.path)
    return WorkerSpec(build_spec=build_spec, storage=storage, fingerprint="f" * 64, run=1, device="cpu")


def open_worker_spec(config: JobConfig, *, grid: int) -> WorkerSpec:
    """Of an open build with grid cells of this many rows."""
    build_spec = resolve_build(config)
    storage = Storage(config.output.path)
    record = build_record.open_build(storage, build_spec.record(grid))
    return WorkerSpec(
        build_spec=build_spec, storage=storage, fingerprint=record.fingerprint, run=1, device="cpu"
    )
