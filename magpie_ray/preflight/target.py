"""The build that a config leads to, as it stands before a run: its output, its spec, what is committed.

`generate`, `plan` and `plan --sample` all look here; only `plan` without a sample goes on where no store
answers. Invariants: looking writes nothing, except that
`find_output` with `claim` records the name of a scheduled build; an output that can't be understood, or that
holds another build, is refused; two drivers that create one build at once agree on its seed and grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from magpie_ray import draws
from magpie_ray.config.loading import JobConfig
from magpie_ray.config.output_path import Tick
from magpie_ray.dataset import build_record, manifest, schedule
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.errors import BuildMismatchError, PreflightError, StorageError
from magpie_ray.preflight.build_spec import BuildSpec, choose_grid
from magpie_ray.preflight.existing import read_existing, refusing
from magpie_ray.preflight.inputs import check_same_inputs
from magpie_ray.preflight.resolve import resolve_build
from magpie_ray.preflight.sources import check_same_source
from magpie_ray.storage.storage import READ_SECONDS, Storage
from magpie_ray.types import Partition, PartitionRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """Where one build lies, not yet looked at.

    config: the user's, with a literal output.path. tick: which build of a schedule it is; None for a path
    without placeholders.
    """

    config: JobConfig
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
    """A build before a run. committed: None where the output holds no build yet.

    unseen: why the output could not be looked at; "" where it was.
    """

    storage: Storage
    build_spec: BuildSpec
    committed: CommittedBuild | None
    unseen: str = ""


def find_output(config: JobConfig, *, claim: bool, look: bool = True) -> Output:
    """The output of one build. With `claim` the same output.build_id leads to the same build from now on.

    look: read which build output.build_id stands for. PreflightError when the records of a schedule's builds
    can't be read or written.
    """
    config, tick = schedule.resolve(config, claim=claim, look=look)
    storage = Storage(config.output.path, config.output.storage_options)
    return Output(config=config, tick=tick, storage=storage)


def look_at(config: JobConfig) -> Target:
    """What `generate` would work on. Raises what `generate` raises before anything starts."""
    output = find_output(config, claim=False)
    return find_target(output, read_existing(output.reader))


def look_if_reachable(config: JobConfig) -> Target:
    """As look_at; but a store that does not answer, or refuses, is taken for one without a build."""
    try:
        return look_at(config)
    except PreflightError as exc:
        output = find_output(config, claim=False, look=False)
        if "://" not in output.storage.url or not isinstance(exc.__cause__, StorageError):
            raise
        return replace(find_target(output, None), unseen=str(exc))


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
    if build_spec.inputs:
        check_same_inputs(existing, build_spec.inputs, storage)
    if build_spec.source:
        check_same_source(build_spec.source, storage)
    build_record.check_same_build(existing, build_spec.record(grid), storage)
    with refusing():
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
    build_spec: BuildSpec,
    storage: Storage,
    *,
    num_actors: int,
    device: str,
    new_seed: Callable[[], int] = draws.new_seed,
) -> tuple[BuildSpec, CommittedBuild, bool]:
    """Create the build, or join the build that another driver has just created; True: it was created.

    What the config leaves open, such as the seed and the grid, is drawn here or is the other driver's; the
    spec that is returned has it. BuildMismatchError for another build.
    """
    drawn = build_spec if build_spec.has_seed else build_spec.with_seed(new_seed())
    record = drawn.record(choose_grid(drawn, num_actors=num_actors, device=device))
    try:
        opened = build_record.open_build(storage, record)
    except BuildMismatchError:
        opened = build_record.require_build(storage)
        drawn = resolve_build(build_spec.config, opened, tick=build_spec.tick)
    return drawn, check_existing(drawn, opened, storage), opened is record
