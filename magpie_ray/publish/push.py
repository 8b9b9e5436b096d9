"""A build on the Hugging Face hub: its data, a few files at a time, and last its dataset card.

What always holds: what is there already, by size and hash, is not sent again, so the same push goes on where
the last one ended; a few files at most are in memory, and none on this machine's disk; a repository that is
open to all gets nothing unless that was said, and files of another build are not mixed in.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from magpie_ray.dataset import manifest, run_records
from magpie_ray.dataset.build_record import require_build
from magpie_ray.dataset.verify import rows_wanted
from magpie_ray.errors import ConfigError, PreflightError
from magpie_ray.publish.card import CARD_KEY, card_text
from magpie_ray.publish.hub import Hub, HubFile
from magpie_ray.storage.storage import ObjectNotFoundError, Storage
from magpie_ray.types import DATA_PREFIX

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

log = logging.getLogger(__name__)

REPORT_KEY = "_magpie/report.html"
# The hub advises a few dozen files a commit; commits an hour are limited.
_FILES_PER_COMMIT = 48
# What is in memory at a time, or one file of the build where that is larger.
_BYTES_AT_ONCE = 128 << 20
_SHOWN_FILES = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Pushed:
    """What was sent, or would be: path and bytes; and how many files were there already."""

    url: str
    sent: tuple[tuple[str, int], ...]
    present: int
    deleted: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Source:
    """A file of the build: where it goes, its size where that is known, and how to read it."""

    path: str
    size: int | None
    read: Callable[[], bytes]


def push(
    storage: Storage,
    hub: Hub,
    *,
    public: bool = False,
    partial: bool = False,
    report: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Bring the repository to what the build is.

    public: a new repository is open to all, and one that is may get the build. partial: also a build that is
    not complete. report: the report too. replace: delete the data of other builds that is there. dry_run:
    change nothing.

    Raises PreflightError for a build that is missing or not complete, ConfigError for a repository that the
    build may not go to, HubError, StorageError.
    """
    sources = _sources(storage, partial=partial, report=report)
    private = hub.is_private()
    if private is False and not public:
        raise ConfigError(f"{hub.url} is open to all: push with --public if that is meant")
    if private and public:
        log.warning("%s is private and stays so; its settings on the hub change that", hub.url)
    if not dry_run:
        hub.create(private=not public)
    there = hub.files()
    foreign = _foreign(sources, there)
    if foreign and not replace:
        raise _other_build(hub, foreign)
    known = {source.path for source in sources}
    gone = tuple(path for path in foreign if path not in known)
    changed = _changed(sources, there, hub, replace)
    sent: list[tuple[str, int]] = []
    if dry_run:
        sent = [(path, len(data)) for path, data in changed]
    else:
        for additions in _commits(changed, hub):
            sent += [(addition.path_in_repo, addition.upload_info.size) for addition in additions]
            is_last = additions[-1].path_in_repo == CARD_KEY
            hub.commit(additions, delete=gone if is_last else (), message=_message(len(additions)))
            log.info("%s: %d files sent, of %d", hub.repo_id, len(sent), len(sources))
        if gone and CARD_KEY not in dict(sent):
            hub.commit((), delete=gone, message=_message(0))
    return Pushed(url=hub.url, sent=tuple(sent), present=len(sources) - len(sent), deleted=gone)


def _sources(storage: Storage, *, partial: bool, report: bool) -> list[_Source]:
    """Everything that goes there, in order."""
    record = require_build(storage)
    records = manifest.read_committed(storage, record)
    wanted = rows_wanted(run_records.read_runs(storage), records)
    rows = sum(committed.stop - committed.start for committed in records)
    complete = manifest.is_marked_complete(storage) and not manifest.pending(wanted, record, records)
    if not records or not (complete or partial):
        raise PreflightError(
            f"{storage.url} is not complete: {rows:,} of {wanted:,} rows are committed: run it again to "
            f"finish it{', or push what is there with --partial' if records else ''}"
        )

    def reads(key: str) -> Callable[[], bytes]:
        return lambda: storage.read(key)

    def read_report() -> bytes:
        try:
            return storage.read(REPORT_KEY)
        except ObjectNotFoundError as exc:
            raise PreflightError(
                f"{storage.url} has no report yet: `magpie-ray report {storage.url}` makes it"
            ) from exc

    data = [
        _Source(path=committed.partition.key, size=committed.size, read=reads(committed.partition.key))
        for committed in records
    ]
    page = read_report() if report else b""
    pages = [_Source(path=REPORT_KEY, size=len(page), read=lambda: page)] if report else []
    card = card_text(storage, record, records).encode()
    return [*data, *pages, _Source(path=CARD_KEY, size=None, read=lambda: card)]


def _foreign(sources: Sequence[_Source], there: Mapping[str, HubFile]) -> list[str]:
    """Data there that is not the build's, as far as names and sizes tell."""
    sizes = {source.path: source.size for source in sources}
    return [
        path for path, file in there.items() if path.startswith(DATA_PREFIX) and sizes.get(path) != file.size
    ]


def _other_build(hub: Hub, paths: Sequence[str]) -> ConfigError:
    more = f" and {len(paths) - _SHOWN_FILES} more" if len(paths) > _SHOWN_FILES else ""
    return ConfigError(
        f"{hub.url} holds data of another build: {', '.join(paths[:_SHOWN_FILES])}{more}. Push to another "
        "repository or --revision, or with --replace, which removes that data"
    )


def _changed(
    sources: Sequence[_Source], there: Mapping[str, HubFile], hub: Hub, replace: bool
) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of what the hub does not have yet."""
    for source in sources:
        file = there.get(source.path)
        data = source.read()
        if file and file.holds(data):
            continue
        if file and source.path.startswith(DATA_PREFIX) and not replace:
            raise _other_build(hub, [source.path])
        yield source.path, data


def _commits(files: Iterable[tuple[str, bytes]], hub: Hub) -> "Iterator[list[CommitOperationAdd]]":
    """The files uploaded, a few at a time, as the commits that they make."""
    additions: list[CommitOperationAdd] = []
    batch: dict[str, bytes] = {}
    for path, data in files:
        batch[path] = data
        is_full = len(additions) + len(batch) >= _FILES_PER_COMMIT
        if is_full or sum(map(len, batch.values())) >= _BYTES_AT_ONCE:
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
