"""A model's name resolved to a commit: the bundled model, a local folder, or a Hugging Face repository.

Owns: the commit of a model, and the check that every machine has the same one. The commit of a folder is a
digest of its files.
"""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from magpie_ray.errors import ModelError
from magpie_ray.model.side_files import read_object
from magpie_ray.types import BUILTIN_MODELS

# The digest of a folder covers every file that is loaded from it. Documents do not count.
_SUFFIXES = (".json", ".jinja", ".model", ".safetensors", ".bin", ".txt", ".tiktoken", ".gguf", ".py")
_DIGEST_PREFIX = "sha256-"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# Files with such names that a training leaves beside weights.
_NO_WEIGHTS = ("adapter", "optimizer", "scheduler", "scaler", "rng_state", "training_args")
_ADAPTER = "adapter_config.json"
# One of them says what a model is; vLLM reads the second for Mistral's own format.
_CONFIGS = ("config.json", "params.json")
# A file up to this size is hashed whole. Of a larger file (weights) the digest covers evenly spread blocks of
# this size in total: fine-tuning changes weights everywhere, and hashing a hundred gigabytes takes minutes.
_HASHED_BYTES = 32 << 20
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model and its commit, a hash that changes when the model changes. The fingerprint contains it.

    name: as the user wrote it. folder: the absolute path of a local model; None for a bundled model and for
    a repository.
    """

    name: str
    commit: str
    folder: str | None = None

    @property
    def location(self) -> str:
        """What this machine loads the model from: a folder, or the id of the repository."""
        if self.name in BUILTIN_MODELS:
            return str(files("magpie_ray").joinpath(BUILTIN_MODELS[self.name]))
        return self.folder or self.name

    @property
    def revision(self) -> str | None:
        """The commit to load from the repository. None for a folder."""
        return None if self.is_folder else self.commit

    def check(self) -> None:
        """Raises ModelError unless this machine has the same folder. A commit of the hub needs no check."""
        if not self.is_folder:
            return
        if not Path(self.location).is_dir():
            raise ModelError(
                f"{platform.node()} has no folder {self.location}: put the model where every node reads it "
                "under that path, or name it by its Hugging Face id"
            )
        if _folder_digest(Path(self.location)) != self.commit:
            raise ModelError(
                f"{self.location} on {platform.node()} holds another model than on the machine that began "
                "this run: give every node the same files"
            )

    def check_config(self) -> None:
        """Raises ModelError for a folder without a config, which no engine loads."""
        folder = Path(self.location)
        if self.is_folder and not any((folder / config).exists() for config in _CONFIGS):
            raise ModelError(
                f"model.name: got {self.name!r}, but that folder has no config.json: name the folder that "
                "holds config.json, the tokenizer and the weights"
            )

    @property
    def is_folder(self) -> bool:
        """Whether `commit` is the digest of a folder rather than a commit of a repository."""
        return self.commit.startswith(_DIGEST_PREFIX)


def resolve_model(name: str, revision: str | None) -> Model:
    """Find a model and its commit. Raises ModelError when the model does not exist or can't be reached.

    revision: a branch, a tag or a commit of a repository. A folder has no revisions.
    """
    builtin = name in BUILTIN_MODELS
    if name.startswith("builtin:") and not builtin:
        raise ModelError(f"model.name: got {name!r}; bundled models are {', '.join(BUILTIN_MODELS)}")
    if "://" in name:
        raise ModelError(
            f"model.name: got {name!r}, but a model is read from a folder, or from the hub by id: copy it "
            "to a disk that every node mounts, or mount the bucket there, and give the folder"
        )
    folder = Path(Model(name=name, commit="").location if builtin else name).expanduser().resolve()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(
                f"model.revision: got {revision!r}, but model.name {name!r} is a folder, which has no "
                "revisions: leave model.revision out"
            )
        _refuse_adapter(name, folder)
        return Model(name=name, commit=_folder_digest(folder), folder=None if builtin else str(folder))
    if name.startswith(("/", ".", "~")):
        raise ModelError(f"model.name: got {name!r}, but there is no folder {folder} on {platform.node()}")
    return Model(name=name, commit=_hub_commit(name, revision))


def _refuse_adapter(name: str, folder: Path) -> None:
    """ModelError for a folder that holds a LoRA adapter and no weights of a model beside it."""
    files = [path.name for path in folder.iterdir() if path.suffix in _WEIGHTS]
    if (folder / _ADAPTER).exists() and all(file.startswith(_NO_WEIGHTS) for file in files):
        raise ModelError(f"model.name: got {name!r}, but {_adapter(folder / _ADAPTER)}")


def _adapter(path: Path) -> str:
    """What is wrong with an adapter as a model, and the remedy, as a clause."""
    base = None
    with suppress(ModelError):
        base = read_object(path).get("base_model_name_or_path")
    return (
        f"that is a LoRA adapter{f' of {base}' if base else ''} ({_ADAPTER}), which is no model by itself: "
        "merge it into its base model (peft's merge_and_unload), save the result and its tokenizer, and name "
        "that folder"
    )


def _folder_digest(folder: Path) -> str:
    """SHA-256 over the names, sizes and contents of the files that are loaded from a folder.

    ModelError when a file can't be read.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _SUFFIXES:
            try:
                size = path.stat().st_size
                digest.update(f"{path.name}\0{size}\0".encode())
                with path.open("rb") as file:
                    for start in _block_starts(size):
                        file.seek(start)
                        digest.update(file.read(_BLOCK_BYTES))
            except OSError as exc:
                reason = exc.strerror or type(exc).__name__
                raise ModelError(f"{path} on {platform.node()} can't be read: {reason}") from exc
    return _DIGEST_PREFIX + digest.hexdigest()[:32]


def _block_starts(size: int) -> Iterator[int]:
    """Offsets of the hashed blocks of a file, its first and its last block among them."""
    if size <= _HASHED_BYTES:
        yield from range(0, size, _BLOCK_BYTES)
        return
    blocks = _HASHED_BYTES // _BLOCK_BYTES
    for block in range(blocks):
        yield (size - _BLOCK_BYTES) * block // (blocks - 1)


def _hub_commit(name: str, revision: str | None) -> str:
    """The commit of a revision, from the hub or, without network, from the local cache."""
    from huggingface_hub import hf_hub_download  # slow to import
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        config = hf_hub_download(name, "config.json", revision=revision)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as exc:
        with suppress(HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
            adapter = Path(hf_hub_download(name, _ADAPTER, revision=revision))
            raise ModelError(f"model.name: got {name!r}, but {_adapter(adapter)}") from exc
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"model.name {name!r}{at} is neither a local folder nor a model that can be read from the hub "
            f"({type(exc).__name__}). Check the spelling; for a gated model accept its licence and set "
            "HF_TOKEN; without network, give a folder that holds config.json, the tokenizer and the weights"
        ) from exc
    return Path(config).parent.name  # the cache has one folder for each commit
