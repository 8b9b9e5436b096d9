"""The files of a table: a file, those of a folder or those that a glob matches, in the order of their names.

Owns: which files count, their format, and what a listing or a read that fails means for the user. Invariant:
a message names the key of the config, and no credential.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, cast

import fsspec

from magpie_ray.errors import MagpieError, PreflightError
from magpie_ray.storage.clients import fresh_file_system
from magpie_ray.storage.failures import remedy, scrubbed

Format = Literal["Parquet", "JSON lines", "CSV"]

_FORMATS: Mapping[str, Format] = {
    ".parquet": "Parquet",
    ".pq": "Parquet",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON lines",
    ".csv": "CSV",
    ".tsv": "CSV",
}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz"}
_ENDINGS = "must end in .parquet, .jsonl or .csv; JSON lines and CSV may be compressed (.gz, .bz2, .xz)"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file. name: below the folder or glob, as messages show it. path: on its file system.

    size: in bytes, as listed; None where the file system does not tell.
    """

    name: str
    path: str
    format: Format
    compression: str | None = None
    size: int | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """All files, of one format, in order. key: of the config, for messages."""

    key: str
    url: str
    fs: Any
    files: tuple[SourceFile, ...]
    options: Mapping[str, object] = field(repr=False)

    @property
    def format(self) -> Format:
        return self.files[0].format

    @contextmanager
    def open(self, file: SourceFile) -> Iterator[BinaryIO]:
        """The bytes of a file, decompressed. PreflightError when it can't be read, also while it is read."""
        with self.reading(file):
            settings: dict[str, Any] = {"compression": file.compression}
            if "://" in self.url:
                settings |= {"block_size": _READ_BYTES * 4, "cache_type": "readahead"}
            with self.fs.open(file.path, "rb", **settings) as opened:
                yield cast(BinaryIO, opened)

    @contextmanager
    def reading(self, file: SourceFile) -> Iterator[None]:
        """What libraries raise becomes a PreflightError that names the file."""
        try:
            yield
        except (MagpieError, GeneratorExit):
            raise
        except Exception as exc:  # every file system has its own exceptions
            raise PreflightError(failure(self.key, f"{file.name} can't be read", exc, self.options)) from exc


def _all(files: Sequence[SourceFile]) -> Sequence[SourceFile]:
    return files


def open_source(
    key: str,
    url: str,
    options: Mapping[str, object],
    *,
    choose: Callable[[Sequence[SourceFile]], Sequence[SourceFile]] = _all,
) -> Source:
    """The files that a path, folder or glob names. key: of the config, such as inputs.path.

    choose: which of the files with a known ending count, for folders that hold others beside the rows.
    PreflightError when there is none, they are of several formats, or the place can't be listed.
    """
    known = f"{key}: got {url}"
    try:
        fs, root = fsspec.url_to_fs(url, **options) if "::" in url else fresh_file_system(url, options)
        sizes, base = _listed(fs, str(root))
    except FileNotFoundError as exc:
        raise PreflightError(f"{known}, but there is no such file or folder") from exc
    except Exception as exc:  # every file system has its own exceptions
        raise PreflightError(failure(key, f"{url} can't be listed", exc, options)) from exc
    is_one = base is None
    files, others = list[SourceFile](), list[str]()
    for path, size in sizes.items():
        name = os.path.basename(path) if is_one else path[len(cast(str, base)) :].lstrip("/")
        if not is_one and any(part.startswith((".", "_")) for part in name.split("/")):
            continue  # as readers of data sets do
        described = described_file(name, path, size)
        if described is None:
            others.append(name)
        else:
            files.append(described)
    files = list(choose(files))
    if not files and is_one and others:
        raise PreflightError(f"{known}: the name of {others[0]} {_ENDINGS}")
    if not files:
        beside = f": {others[0]} and others {_ENDINGS}" if others else ""
        raise PreflightError(f"{known}, which holds no file to read{beside}")
    if "file" in fs.protocol and (special := [file for file in files if not os.path.isfile(file.path)]):
        raise PreflightError(
            f"{known}, where {special[0].name} is no regular file but a pipe, a socket or a device: save its "
            "content as a file"
        )
    files.sort(key=lambda file: file.name)
    if len({file.format for file in files}) > 1:
        first, other = files[0], next(file for file in files if file.format != files[0].format)
        raise PreflightError(
            f"{known}, where {first.name} is {first.format} and {other.name} is {other.format}: keep one "
            "format, such as with a glob (*.parquet)"
        )
    return Source(key=key, url=url, fs=fs, files=tuple(files), options=options)


def _listed(fs: Any, root: str) -> tuple[dict[str, int | None], str | None]:
    """The paths with their sizes, and what their names are relative to; None for a single file."""
    if any(character in root for character in "*?[") and not fs.exists(root):
        base = root[: min(root.index(c) for c in "*?[" if c in root)].rpartition("/")[0]
        matches = fs.glob(root, detail=True)
        return {path: info.get("size") for path, info in matches.items() if info["type"] == "file"}, base
    if fs.isfile(root) or (fs.exists(root) and fs.info(root)["type"] == "other"):
        return {root: fs.info(root).get("size")}, None
    found = fs.find(root, detail=True)
    if not found and not fs.exists(root):
        raise FileNotFoundError(root)
    return {path: info.get("size") for path, info in found.items() if not path.endswith("/")}, root.rstrip(
        "/"
    )


def described_file(name: str, path: str, size: int | None = None) -> SourceFile | None:
    """What the ending of a file's name says; None for an ending that is not known."""
    stem, ending = os.path.splitext(name.lower())
    compression = _COMPRESSIONS.get(ending)
    if compression:
        ending = os.path.splitext(stem)[1]
    form = _FORMATS.get(ending)
    if form is None or (compression and form == "Parquet"):
        return None
    return SourceFile(name=name, path=path, format=form, compression=compression, size=size)


def failure(key: str, what: str, exc: Exception, options: Mapping[str, object]) -> str:
    """What went wrong with files of the user's, with a remedy, as a message. key: of the config."""
    hint = of_section(key, remedy(exc))
    return f"{key}: {what}: {scrubbed(exc, options)}. {hint}"


def of_section(key: str, text: str) -> str:
    """A message on an output, as one on the section that the key is of."""
    section = key.partition(".")[0]
    return text.replace("output.", f"{section}.").replace("; the same command then resumes", "")
