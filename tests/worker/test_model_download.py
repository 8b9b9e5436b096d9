"""One download of a model a node: the second actor waits for the first one's."""

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from magpie_ray.config.sections import EngineConfig
from magpie_ray.errors import ModelError
from magpie_ray.model.resolve import Model
from magpie_ray.worker.model_download import fetch_once, fetch_weights

MODEL = Model(name="org/model", commit="c0ffee")


class Cache:
    """A node's cache, and the downloads into it. A download takes until `go_on` is set."""

    def __init__(self, *files: str) -> None:
        self.lacks = list(files)
        self.downloads: list[Sequence[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def missing(self) -> Sequence[str]:
        return list(self.lacks)

    def download(self, names: Sequence[str]) -> None:
        self.downloads.append(names)
        self.begun.set()
        assert self.go_on.wait(30)
        self.lacks.clear()


def test_the_second_actor_of_a_node_waits_for_the_first_ones_download_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cache = Cache("a.safetensors", "b.safetensors")

    def fetch() -> None:
        fetch_once(MODEL, missing=cache.missing, download=cache.download, locks=tmp_path)

    first, second = threading.Thread(target=fetch), threading.Thread(target=fetch)
    first.start()
    assert cache.begun.wait(30)
    second.start()
    while not any("another actor of this node downloads org/model" in text for text in caplog.messages):
        assert second.is_alive()
    cache.go_on.set()
    first.join(30)
    second.join(30)
    assert cache.downloads == [["a.safetensors", "b.safetensors"]]


def test_what_is_in_the_cache_needs_no_lock(tmp_path: Path) -> None:
    cache = Cache()
    fetch_once(MODEL, missing=cache.missing, download=cache.download, locks=tmp_path / "none")
    assert cache.downloads == []


def test_a_hub_that_refuses_is_a_failed_start_that_says_what_to_do(tmp_path: Path) -> None:
    def refused() -> Sequence[str]:
        raise LocalEntryNotFoundError("429 Client Error: Too Many Requests")

    with pytest.raises(ModelError, match=r"org/model could not be downloaded.*429.*HF_HOME"):
        fetch_once(MODEL, missing=refused, download=lambda names: None, locks=tmp_path)


def test_a_model_on_disk_and_other_loaders_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    fetch_weights(Model(name="/m", commit="sha256-1", folder="/m"), EngineConfig())
    fetch_weights(MODEL, EngineConfig(extra={"load_format": "dummy"}))


def test_without_network_the_cache_is_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    fetch_weights(MODEL, EngineConfig())


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("lacking", [False, True])
def test_weights_that_the_cache_holds_are_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: bool
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    snapshot = tmp_path / "models--org--model" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    files = {"weight_map": {"w1": "a.safetensors", "w2": "b.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(files))
    (snapshot / "a.safetensors").touch()
    if not lacking:
        (snapshot / "b.safetensors").touch()
    downloads = list[Sequence[str]]()

    def download(*_: object, allow_patterns: Sequence[str], **__: object) -> None:
        downloads.append(allow_patterns)
        (snapshot / "b.safetensors").touch()

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    for _ in range(2):
        fetch_weights(
            Model(name="org/model", commit=COMMIT), EngineConfig(extra={"download_dir": str(tmp_path)})
        )
    assert downloads == ([["b.safetensors"]] if lacking else [])
