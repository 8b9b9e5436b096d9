"""The build that a config leads to, as it stands before a run: its output, its spec, what is committed.

`generate`, `plan` and `plan --sample` all look here. Invariants: looking writes nothing, except that
`find_output` with `claim` records the name of a scheduled build; an output that can't be understood, or that
holds another build, is refused; two drivers that create one build at once agree on its grid.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from magpie_ray.config.output_path import Tick
from magpie_ray.config.schema import Config
from magpie_ray.dataset import build_record, layout, manifest, schedule
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, CorruptBuildError, PreflightError, StorageError
from magpie_ray.preflight.build_spec import BuildSpec, choose_grid, resolve_build
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import DATA_PREFIX, Partition, PartitionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Where one build lies, not yet looked at.

    config: the user's, with a literal output.path. tick: which build of a schedule it is; None for a path
    without placeholders.
    """

    config: Config
    tick: Tick | None
    storage: Storage

    @property
    def reader(self) -> Storage:
        """The same storage for a user who waits at a terminal: a read gives up after READ_SECONDS."""
        return self.storage.retrying_for(READ_SECONDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class CommittedBuild:
    """An existing build that agrees with the build spec. pending: what is left to generate, in order."""

    build: BuildRecord
    records: tuple[PartitionRecord, ...]
    pending: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A build before a run. committed: None where the output holds no build yet."""

    storage: Storage
    build_spec: BuildSpec
    committed: CommittedBuild | None


def find_output(config: Config, *, claim: bool) -> Output:
    """The output of one build. With `claim` the same output.build_id leads to the same build from now on.

    PreflightError when the records of a schedule's builds can't be read or written.
    """
    config, tick = schedule.resolve(config, claim=claim)
    storage = Storage(config.output.path, config.output.storage_options)
    return Output(config=config, tick=tick, storage=storage)


def look_at(config: Config) -> Target:
    """What `generate` would work on. Raises what `generate` raises before anything starts."""
    output = find_output(config, claim=False)
    return find_target(output, read_existing(output.reader))


def read_existing(storage: Storage) -> BuildRecord | None:
    """The build at the output; None where there is none yet. PreflightError when it can't be understood."""
    with _refusing():
        record = build_record.read_build(storage)
        if record is None and storage.list_objects(DATA_PREFIX):
            raise PreflightError(
                f"{storage.display(DATA_PREFIX)} holds files, but there is no {layout.BUILD_KEY} that says "
                "which build they belong to: bring it back, or choose another output.path"
            )
        return record


def find_target(output: Output, existing: BuildRecord | None) -> Target:
    """Resolve the build spec, and check what `existing` has committed against it.

    Raises what resolve_build and check_existing raise.
    """
    build_spec = resolve_build(output.config, existing, tick=output.tick)
    committed = check_existing(build_spec, existing, output.reader) if existing else None
    return Target(storage=output.storage, build_spec=build_spec, committed=committed)


def check_existing(build_spec: BuildSpec, existing: BuildRecord, storage: Storage) -> CommittedBuild:
    """What is committed of the existing build, which must be the build that the spec describes.

    BuildMismatchError for another fingerprint or grid, or for a num_rows below the last committed row;
    PreflightError for files that do not belong to the build.
    """
    num_rows, rows_per_partition = build_spec.config.num_rows, build_spec.config.output.rows_per_partition
    grid = existing.rows_per_partition if rows_per_partition == "auto" else rows_per_partition
    build_record.check_same_build(existing, build_spec.record(grid), storage)
    with _refusing():
        records = tuple(manifest.read_committed(storage, existing))
    end = max((record.stop for record in records), default=0)
    if num_rows < end:
        raise BuildMismatchError(
            f"num_rows: got {num_rows}, but {storage.url} holds rows up to {end - 1} already: a build may "
            f"grow, never shrink. Set num_rows to {end} or more, or choose another output.path"
        )
    pending = tuple(manifest.pending(num_rows, existing, records))
    return CommittedBuild(build=existing, records=records, pending=pending)


def open_build(
    build_spec: BuildSpec, storage: Storage, *, num_actors: int, device: str
) -> tuple[CommittedBuild, bool]:
    """Create the build, or join the build that another driver has just created; True: it was created.

    A grid that the config leaves open is then the other driver's. BuildMismatchError for another build.
    """
    record = build_spec.record(choose_grid(build_spec, num_actors=num_actors, device=device))
    try:
        opened = build_record.open_build(storage, record)
    except BuildMismatchError:
        opened = build_record.require_build(storage)
    return check_existing(build_spec, opened, storage), opened is record


@contextmanager
def _refusing() -> Iterator[None]:
    """Before anything has started, a broken output is a refusal and not a failure of the work."""
    try:
        yield
    except (CorruptBuildError, StorageError) as exc:
        raise PreflightError(str(exc)) from exc
