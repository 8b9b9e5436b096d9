"""Which model a name means: the bundled one, a local folder, or a Hugging Face repository at one commit.

What always holds: the commit is resolved once, by the driver, and everybody loads exactly that one.
"""

import hashlib
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from magpie_ray.errors import FormatError
from magpie_ray.types import BUILTIN_MODELS

BUILTIN_PREFIX = "builtin:"

# What a folder's digest covers: all that is loaded from it. The bundled model's folder holds code of its own.
_SUFFIXES = (".json", ".jinja", ".model", ".safetensors", ".bin", ".txt", ".tiktoken", ".gguf")
_CODE_SUFFIX = ".py"
_DIGEST_PREFIX = "sha256-"
# Files up to this size count whole; of larger ones (weights) as many evenly spread blocks as make it up: fine
# tuning changes weights everywhere, and reading all of a hundred gigabytes would take minutes.
_HASHED_BYTES = 32 << 20
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model and its commit: a hash that changes when the model does, for the fingerprint.

    name: as the user wrote it. folder: where it lies, absolute; None for the bundled one and for the hub's.
    """

    name: str
    commit: str
    folder: str | None = None

    @property
    def location(self) -> str:
        """What to load on the machine that asks: a folder, or the repository's id."""
        if self.name in BUILTIN_MODELS:
            return str(files("magpie_ray").joinpath(BUILTIN_MODELS[self.name]))
        return self.folder or self.name

    @property
    def revision(self) -> str | None:
        """The commit to load from the repository; None for a folder."""
        return None if self.is_folder else self.commit

    def check(self) -> None:
        """FormatError unless this machine has the very same folder; the hub's commits need no check."""
        if not self.is_folder:
            return
        if not Path(self.location).is_dir():
            raise FormatError(
                f"{platform.node()} has no folder {self.location}: put the model where every node reads it "
                "under that path, or name it by its Hugging Face id"
            )
        if _folder_digest(Path(self.location), with_code=self.name not in BUILTIN_MODELS) != self.commit:
            raise FormatError(
                f"{self.location} on {platform.node()} holds another model than on the machine that began "
                "this run: give every node the same files"
            )

    @property
    def is_folder(self) -> bool:
        """Whether `commit` is the digest of a folder, and not a commit of a repository."""
        return self.commit.startswith(_DIGEST_PREFIX)


def resolve_model(name: str, revision: str | None) -> Model:
    """Find a model and its commit. FormatError when there is no such model, or it can't be reached.

    `revision` is a branch, a tag or a commit of a repository: folders have none.
    """
    if name.startswith(BUILTIN_PREFIX) and name not in BUILTIN_MODELS:
        raise FormatError(f"model.name: got {name!r}; bundled models are {', '.join(BUILTIN_MODELS)}")
    builtin = name in BUILTIN_MODELS
    folder = Path(Model(name=name, commit="").location if builtin else name).expanduser().resolve()
    if folder.is_dir():
        if revision is not None:
            raise FormatError(
                f"model.revision: got {revision!r}, but model.name {name!r} is a folder, which has no "
                "revisions: leave model.revision out"
            )
        digest = _folder_digest(folder, with_code=not builtin)
        return Model(name=name, commit=digest, folder=None if builtin else str(folder))
    if name.startswith(("/", ".", "~")):
        raise FormatError(f"model.name: got {name!r}, but there is no folder {folder} on {platform.node()}")
    return Model(name=name, commit=_hub_commit(name, revision))


def _folder_digest(folder: Path, *, with_code: bool) -> str:
    """SHA-256 over names, sizes and contents of what is loaded from a folder; documents don't count."""
    digest = hashlib.sha256()
    suffixes = (*_SUFFIXES, _CODE_SUFFIX) if with_code else _SUFFIXES
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in suffixes:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                for start in _block_starts(size):
                    file.seek(start)
                    digest.update(file.read(_BLOCK_BYTES))
    return _DIGEST_PREFIX + digest.hexdigest()[:32]


def _block_starts(size: int) -> Iterator[int]:
    """Where the hashed blocks of a file begin: all of a small file, always its beginning and its end."""
    if size <= _HASHED_BYTES:
        yield from range(0, size, _BLOCK_BYTES)
        return
    blocks = _HASHED_BYTES // _BLOCK_BYTES
    for block in range(blocks):
        yield (size - _BLOCK_BYTES) * block // (blocks - 1)


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit a revision stands for now, from the hub or, without network, from the local cache."""
    from huggingface_hub import hf_hub_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as exc:
        at = f" at revision {revision!r}" if revision else ""
        raise FormatError(
            f"model.name {name!r}{at} is neither a local folder nor a model that can be read from the hub "
            f"({type(exc).__name__}). Check the spelling; for a gated model accept its licence and set "
            "HF_TOKEN; without network, give a folder that holds config.json, the tokenizer and the weights"
        ) from exc
    return Path(config).parent.name  # the cache keeps every commit in a folder of its own
