"""Fetches the weights of a model from the hub before the engine starts, once for all actors of a node.

vLLM and the hub's client lock their downloads, too; but there the second actor waits without a word, and asks
the hub for the same lists first.
"""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from magpie_ray.config.sections import EngineConfig
from magpie_ray.errors import ModelError
from magpie_ray.model.resolve import Model

log = logging.getLogger(__name__)
T = TypeVar("T")

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
# Load formats of vLLM that read these files from the hub's cache.
_FORMATS = ("auto", "hf", "safetensors", "runai_streamer")

# Names of files that are missing in the cache; and their download.
Missing = Callable[[], Sequence[str]]
Download = Callable[[Sequence[str]], None]


def fetch_weights(model: Model, engine: EngineConfig) -> None:
    """Download the weights, or wait until another actor of this node has done so.

    Does nothing for a model on disk, without network, or where vLLM loads from elsewhere. Raises ModelError.
    """
    extra = engine.extra
    if model.is_folder or extra.get("load_format", "auto") not in _FORMATS:
        return
    from huggingface_hub import constants, hf_hub_download, snapshot_download  # slow to import
    from huggingface_hub.errors import EntryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return
    folder = extra.get("download_dir")

    def download(names: Sequence[str]) -> None:
        if names != [_SINGLE]:
            snapshot_download(model.name, revision=model.commit, cache_dir=folder, allow_patterns=list(names))
            return
        with suppress(EntryNotFoundError):  # weights under other names: vLLM looks for them
            hf_hub_download(model.name, _SINGLE, revision=model.commit, cache_dir=folder)

    fetch_once(
        model,
        missing=lambda: _missing(model, str(folder) if folder else None),
        download=download,
        locks=Path(tempfile.gettempdir()),
    )


def fetch_once(model: Model, *, missing: Missing, download: Download, locks: Path) -> None:
    """Download what is missing, one process after the other. locks: a folder that a node's actors share."""
    if not _asked(model, missing):
        return
    name = hashlib.sha256(f"{model.name}@{model.commit}".encode()).hexdigest()[:16]
    lock = FileLock(locks / f"magpie-ray-{name}.lock", mode=0o666)
    began = time.monotonic()
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another actor of this node downloads %s: waiting for it", model.name)
        lock.acquire()
        log.info("waited %.0f s for the download of %s", time.monotonic() - began, model.name)
    try:
        # By now another actor may have done it.
        if names := _asked(model, missing):
            log.info("downloading %d files of %s for all actors of this node", len(names), model.name)
            _asked(model, lambda: download(names))
            log.info("downloaded %s in %.0f s", model.name, time.monotonic() - began)
    finally:
        lock.release()


def _asked(model: Model, ask: Callable[[], T]) -> T:
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return ask()
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise ModelError(
            f"the weights of {model.name} could not be downloaded ({type(exc).__name__}: {exc}). With many "
            "nodes, put them into the image or on a shared disk (HF_HOME); for a mirror (HF_ENDPOINT) or a "
            "proxy without the hub's Xet storage, set HF_HUB_DISABLE_XET=1"
        ) from exc


def _missing(model: Model, folder: str | None) -> Sequence[str]:
    """The weight files that the cache lacks. Empty where the repository has them under other names."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    names = [_SINGLE]
    try:
        index = hf_hub_download(model.name, _INDEX, revision=model.commit, cache_dir=folder)
        names = sorted(set(json.loads(Path(index).read_bytes())["weight_map"].values()))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        pass
    # None where nothing is known of the file; the cache also knows which files do not exist.
    return [
        name
        for name in names
        if try_to_load_from_cache(model.name, name, cache_dir=folder, revision=model.commit) is None
    ]
