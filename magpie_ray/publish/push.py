"""Pushes a build to the Hugging Face hub: its data, some files a commit, and last its dataset card.

Invariants: a file that the hub has, by size and hash, is not sent again, so a repeated push continues where
the last one ended. A few files at most are in memory, none on disk. A public repository gets nothing unless
that is asked for, and data of two builds is never mixed.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.build_record import BuildRecord, require_build
from magpie_ray.dataset.layout import CARD_KEY, REPORT_KEY
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.publish.card import card_text
from magpie_ray.publish.hub import Hub, HubFile
from magpie_ray.publish.hub_paths import MOST_FLAT, data_files, hub_paths
from magpie_ray.storage.storage import Storage
from magpie_ray.types import DATA_PREFIX, PartitionRecord

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

log = logging.getLogger(__name__)

# The hub advises a few dozen files a commit, takes a thousand, and limits the commits of an hour (128).
_FILES_PER_COMMIT, _MOST_FILES_PER_COMMIT = 48, 1_000
_COMMITS = 100
# The bytes in memory at a time; a larger file is in memory alone.
_BYTES_AT_ONCE = 128 << 20
_SHOWN_FILES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """The result of a push, or of a dry run. sent: path and bytes. present: files that were there already."""

    url: str
    sent: tuple[tuple[str, int], ...]
    present: int
    deleted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A file of the build. key: in storage. path: on the hub. size: in bytes, of data files.

    data: of a file that is not read from storage.
    """

    key: str
    path: str
    size: int | None = None
    data: bytes | None = None


def push(
    storage: Storage,
    hub: Hub,
    *,
    public: bool = False,
    partial: bool = False,
    report: bool = False,
    replace: bool = False,
    dry_run: bool = False,
    files_per_commit: int | None = None,
    most_flat: int = MOST_FLAT,
    bytes_at_once: int = _BYTES_AT_ONCE,
) -> Pushed:
    """Make the repository hold the build.

    public: create a public repository; allow one that is public. partial: push a build that is not complete.
    report: push the report, too. replace: delete data of other builds. dry_run: change nothing. most_flat: a
    build of more files gets sub-folders. files_per_commit: None chooses, by their number.

    Raises PreflightError for a build that is missing, not complete or too large for the hub, ConfigError for
    a repository that must not get the build, HubError, StorageError.
    """
    record, records = _committed(storage, partial=partial, report=report)
    grid = record.rows_per_partition
    hub_paths(records, {}, grid=grid, most_flat=most_flat)  # a build that can't go there changes nothing
    private = hub.is_private()
    if private is False and not public:
        raise ConfigError(f"{hub.url} is public: push with --public if that is meant")
    if private and public:
        log.warning("%s is private and stays private: only its settings on the hub change that", hub.url)
    if not dry_run and hub.create(private=not public):
        replace = True  # data of main's build is not the new branch's own
    files = hub.files()
    sizes = {path: file.size for path, file in files.items()}
    paths = hub_paths(records, sizes, grid=grid, most_flat=most_flat)
    sources = [_Source(key=r.partition.key, path=paths[r.partition.key], size=r.size) for r in records]
    if report:
        sources.append(_Source(key=REPORT_KEY, path=REPORT_KEY))
    card = card_text(storage, record, records, data_files=data_files(paths)).encode()
    sources.append(_Source(key=CARD_KEY, path=CARD_KEY, data=card))
    foreign = _foreign(sources, files)
    if foreign and not replace:
        raise _other_build(hub, foreign)
    wanted = {source.path for source in sources}
    outdated = tuple(path for path in foreign if path not in wanted)
    changed = _changed(storage, sources, files, hub, replace)
    sent: list[tuple[str, int]] = []
    if dry_run:
        sent = [(path, len(data)) for path, data in changed]
    else:
        a_commit = files_per_commit or _files_per_commit(len(sources))
        for additions in _uploads(changed, hub, a_commit, bytes_at_once):
            sent += [(addition.path_in_repo, addition.upload_info.size) for addition in additions]
            is_last = additions[-1].path_in_repo == CARD_KEY
            hub.commit(additions, delete=outdated if is_last else (), message=_message(len(additions)))
            log.info("%s: %d of %d files sent", hub.repo_id, len(sent), len(sources))
        if outdated and CARD_KEY not in dict(sent):
            hub.commit((), delete=outdated, message=_message(0))
    return Pushed(url=hub.url, sent=tuple(sent), present=len(sources) - len(sent), deleted=outdated)


def _committed(
    storage: Storage, *, partial: bool, report: bool
) -> tuple[BuildRecord, Sequence[PartitionRecord]]:
    """The build and the partitions to push, in order. PreflightError where that is not to be pushed."""
    record = require_build(storage)
    records = manifest.read_committed(storage, record)
    num_rows = run_records.rows_wanted(run_records.read_runs(storage), records)
    rows = sum(committed.rows for committed in records)
    is_complete = manifest.is_marked_complete(storage) and not manifest.pending(num_rows, record, records)
    if not records or not (is_complete or partial):
        raise PreflightError(
            f"{storage.url} is not complete: {rows:,} of {num_rows:,} rows are committed: run it again to "
            f"finish it{', or push what is there with --partial' if records else ''}"
        )
    if report and not storage.exists(REPORT_KEY):
        raise PreflightError(f"{storage.url} has no report yet: `magpie-ray report {storage.url}` makes it")
    return record, records


def _files_per_commit(files: int) -> int:
    """Few files a commit, unless that made more commits than the hub takes in an hour."""
    return min(_MOST_FILES_PER_COMMIT, max(_FILES_PER_COMMIT, -(-files // _COMMITS)))


def _foreign(sources: Sequence[_Source], files: Mapping[str, HubFile]) -> list[str]:
    """Paths of data on the hub that is not the build's, as far as names and sizes tell."""
    sizes = {source.path: source.size for source in sources}
    return [
        path for path, file in files.items() if path.startswith(DATA_PREFIX) and sizes.get(path) != file.size
    ]


def _other_build(hub: Hub, paths: Sequence[str]) -> ConfigError:
    more = f" and {len(paths) - _SHOWN_FILES} more" if len(paths) > _SHOWN_FILES else ""
    return ConfigError(
        f"{hub.url} holds data of another build: {', '.join(paths[:_SHOWN_FILES])}{more}. Push to another "
        "repository or --revision, or with --replace, which removes that data"
    )


def _changed(
    storage: Storage, sources: Sequence[_Source], files: Mapping[str, HubFile], hub: Hub, replace: bool
) -> Iterator[tuple[str, bytes]]:
    """The path and the bytes of each file that the hub does not have."""
    for source in sources:
        file = files.get(source.path)
        data = storage.read(source.key) if source.data is None else source.data
        if file and file.holds(data):
            continue
        if file and source.path.startswith(DATA_PREFIX) and not replace:
            raise _other_build(hub, [source.path])
        yield source.path, data


def _uploads(
    files: Iterable[tuple[str, bytes]], hub: Hub, files_per_commit: int, bytes_at_once: int
) -> "Iterator[list[CommitOperationAdd]]":
    """Upload the files and yield the additions of each commit."""
    additions: list[CommitOperationAdd] = []
    batch: dict[str, bytes] = {}
    for path, data in files:
        batch[path] = data
        is_full = len(additions) + len(batch) >= files_per_commit
        if is_full or sum(map(len, batch.values())) >= bytes_at_once:
            additions += hub.upload(batch)
            batch = {}
        if is_full:
            yield additions
            additions = []
    if batch:
        additions += hub.upload(batch)
    if additions:
        yield additions


def _message(files: int) -> str:
    return f"magpie-ray: {files:,} files" if files else "magpie-ray: data of another build removed"
