"""Which model a name means: the bundled one, a local folder, or a Hugging Face repository at one commit.

What always holds: the commit is resolved once, by the driver, and everybody loads exactly that one.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from magpie_ray.errors import FormatError

BUILTIN_PREFIX = "builtin:"
_BUILTIN = {"builtin:tiny-chat": "tiny_chat"}

# Smaller files of a local folder count with their content, larger ones (weights) with their size.
_HASHED_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """name: as the user wrote it. commit: a hash that changes when the model does, for the fingerprint."""

    name: str
    commit: str

    @property
    def location(self) -> str:
        """What to load on the machine that asks: a folder, or the repository's id."""
        if self.name in _BUILTIN:
            return str(files("magpie_ray").joinpath(_BUILTIN[self.name]))
        folder = Path(self.name).expanduser()
        return str(folder.resolve()) if folder.is_dir() else self.name

    @property
    def revision(self) -> str | None:
        """The commit to load from the repository; None for a folder."""
        return None if Path(self.location).is_dir() else self.commit


def resolve_model(name: str, revision: str | None) -> Model:
    """Find a model and its commit. FormatError when there is no such model, or it can't be reached."""
    if name.startswith(BUILTIN_PREFIX) and name not in _BUILTIN:
        raise FormatError(f"model.name: got {name!r}; bundled models are {', '.join(_BUILTIN)}")
    folder = Path(Model(name=name, commit="").location)
    if folder.is_dir():
        return Model(name=name, commit=_folder_digest(folder))
    return Model(name=name, commit=_hub_commit(name, revision))


def _folder_digest(folder: Path) -> str:
    """SHA-256 over names, sizes and, of small files, contents. Code and documents don't count."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in (".json", ".jinja", ".model", ".safetensors", ".bin", ".txt"):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            if size <= _HASHED_BYTES:
                digest.update(path.read_bytes())
    return "sha256-" + digest.hexdigest()[:32]


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
